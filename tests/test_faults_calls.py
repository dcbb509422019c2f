"""Wrong calls: each argument × a list of wrong values. Every one is an error that names function and argument.

A message must start with the function (or the layer) that was called, and name what was got. None comes from inside
JAX, and none is accepted.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import checks, losses, metrics, nn, plot, uncertainty

key = jax.random.key(0)
x, image, indices = jnp.ones((4, 3)), jnp.ones((2, 6, 6, 3)), jnp.zeros((4, 2), int)
sequence = jnp.ones((4, 5, 3))
LOGITS, LABELS, MEMBERS = jnp.ones((4, 3)), jnp.zeros(4, int), jnp.ones((2, 4, 3))
NAN, INF = float("nan"), float("inf")

SIZES = [0, -1, 2.5, True, "3", None, NAN, jnp.float32(2.5)]
PER_AXIS = [*SIZES, (), (0, 1), (2.0, 2), ("a", "b"), [[2]]]
PADDINGS = [
    1,
    "same",
    None,
    ((1,),),
    ((-1, 0), (0, 0)),
    ((1.5, 1), (1, 1)),
    ((True, 1), (1, 1)),
    ("a", 1),
    [],
    ((1, 2),),
]
NUMBERS = ["a", None, [0.1], jnp.array([0.1, 0.2]), 1j, True, {}, NAN, INF]
RATES = [*NUMBERS, -0.1, 1.0, 1.5, jnp.array(1.5)]
POSITIVE = [*NUMBERS, 0, -1]
FLAGS = ["no", 2, None]
FUNCTIONS = [3, "relu", None]
LAYERS = [3, "relu", None, [nn.dense(2)], {}, jnp.ones(3), nn.flatten, nn.dense, nn.batch_norm]
DTYPES = [int, "float33", None, jnp.int32, 3]
KEYS = [0, None, "k", jax.random.split(key, 2), jnp.ones(3), 1.5]
INPUTS = [3.0, "a", None, [[1.0]], {}, jnp.ones(()), jnp.ones(3), jnp.ones((4, 3), int), jnp.ones((4, 3), bool),
          jnp.ones((4, 3), jnp.complex64), jnp.ones((4, 0)), np.array([["a"]]),
          np.ma.array(np.ones((4, 3), np.float32), mask=np.eye(4, 3)), np.ones((4, 3), ">f4"),
          np.ones((4, 3), np.longdouble)]  # fmt: skip
ARRAYS = ["a", None, {}, [[1, 2], [3]], np.array([["a"] * 3] * 4), key, 3.0, jnp.ones, jnp.ones((5, 3)), jnp.ones(()),
          jnp.ones((4, 3), jnp.complex64)]  # fmt: skip
PER_EXAMPLE = ["a", {}, 2.0, key, jnp.ones(3), jnp.ones((4, 1)), jnp.ones(()), jnp.ones(4, jnp.complex64)]
PARAMS = [(), None, {}, 3, ((),), {"w": jnp.ones((3, 2))}, {"w": jnp.ones((9, 9)), "b": jnp.ones(9)},
          {"scale": jnp.ones(9), "bias": jnp.ones(9)}, nn.dense(7).init(key, jnp.ones((1, 5)))[0],
          nn.dense(7).init(key, x)[0], nn.mlp([4], 2).init(key, x)[0]]  # fmt: skip


class Row(NamedTuple):
    argument: str  # where the values go, as in "nn.dense(features)"
    call: Callable[[Any], Any]
    values: list[Any]


def use(layer, x=x):
    """Call all that a layer is made of."""
    params, state = layer.init(key, x)
    return layer.apply(params, state, x, train=True, key=key)


def rows_of(name: str, make: Callable[..., nn.Layer], x: Any, arguments: dict[str, list[Any]]) -> list[Row]:
    """Return a row for each argument of a function that builds a layer; `make` has defaults for all of them."""
    return [
        Row(f"{name}({argument})", lambda value, argument=argument: use(make(**{argument: value}), x), values)
        for argument, values in arguments.items()
    ]


def dense(features=2, **options):
    return nn.dense(features, **options)


def conv(features=2, kernel_size=3, **options):
    return nn.conv(features, kernel_size, **options)


def max_pool(window=2, **options):
    return nn.max_pool(window, **options)


def avg_pool(window=2, **options):
    return nn.avg_pool(window, **options)


def embedding(size=5, features=2, **options):
    return nn.embedding(size, features, **options)


def mlp(hidden=(3,), outputs=2, **options):
    return nn.mlp(hidden, outputs, **options)


def residual_mlp(width=3, depth=2, outputs=2, **options):
    return nn.residual_mlp(width, depth, outputs, **options)


def lenet(outputs=2, **options):
    return nn.lenet(outputs, **options)


_starts = {"bias": FLAGS, "w_init": FUNCTIONS, "b_init": FUNCTIONS}
_strides = [value for value in PER_AXIS if value is not None]  # None is the window's size
_hidden = [3, 0, None, "3", 3.0, [0], [-1], [2.5], [True], ["3"], [None], {3: 1}, [[3]]]

BUILT = [
    *rows_of("dense", dense, x, {"features": SIZES, "features_first": FLAGS, **_starts}),
    *rows_of("conv", conv, image, {"features": SIZES, "kernel_size": PER_AXIS, "strides": PER_AXIS,
                                   "dilation": PER_AXIS, "groups": [*SIZES, 2], "padding": PADDINGS, **_starts}),
    *rows_of("max_pool", max_pool, image, {"window": PER_AXIS, "strides": _strides,
                                           "padding": [*PADDINGS, ((3, 0), (0, 0))]}),
    *rows_of("avg_pool", avg_pool, image, {"window": PER_AXIS, "strides": _strides,
                                           "padding": [*PADDINGS, ((3, 0), (0, 0))]}),
    *rows_of("batch_norm", nn.batch_norm, x, {"decay": [*NUMBERS, -0.1, 1.5], "eps": POSITIVE}),
    *rows_of("layer_norm", nn.layer_norm, x, {"eps": POSITIVE, "width": [*filter(None, SIZES), 0, 4]}),
    *rows_of("dropout", lambda rate=0.5, **options: nn.dropout(rate, **options), x, {"rate": RATES, "always": FLAGS}),
    *rows_of("embedding", embedding, indices, {"size": SIZES, "features": SIZES, "w_init": FUNCTIONS}),
    *rows_of("scale", nn.scale, x, {"initial": NUMBERS}),
    *rows_of("reshape", nn.reshape, x, {"shape": [3, 0, None, "3", 3.0, (0,), (-1,), (1.5, 2), (True, 3), (2, 2)]}),
    *rows_of("first_features", nn.first_features, x, {"width": [*SIZES, 4, jnp.array([1, 2])]}),
    *rows_of("mlp", mlp, x, {"hidden": _hidden, "outputs": SIZES, "activation": [*FUNCTIONS, nn.dense(3), nn.dense],
                             "norm": ["bath", 3, True, nn.batch_norm], "dropout": RATES, "features_first": FLAGS,
                             "widths": [3, 3.0, "1", [1, 2], [0], [4], ["a"], [2.5]]}),
    *rows_of("residual_mlp", residual_mlp, x, {"width": SIZES, "depth": SIZES, "outputs": SIZES, "dropout": RATES,
                                               "activation": FUNCTIONS, "norm": ["bath", 3, True]}),
    *rows_of("lenet", lenet, jnp.ones((1, 28, 28, 1)), {"outputs": SIZES, "activation": FUNCTIONS}),
    *rows_of("perceptron", nn.perceptron, x, {"activation": FUNCTIONS}),
    *rows_of("rms_norm", nn.rms_norm, x, {"eps": POSITIVE}),
    *rows_of("group_norm", lambda groups=1, **options: nn.group_norm(groups, **options), x,
             {"groups": [*SIZES, 2], "eps": POSITIVE}),
    *rows_of("conv_transpose", lambda features=2, kernel_size=3, **options:
             nn.conv_transpose(features, kernel_size, **options), image,
             {"features": SIZES, "kernel_size": PER_AXIS, "strides": PER_AXIS, "padding": PADDINGS, **_starts}),
    *rows_of("upsample", lambda factor=2, **options: nn.upsample(factor, **options), image,
             {"factor": PER_AXIS, "method": ["cubic", None, 3]}),
    *rows_of("multi_head_attention", lambda heads=1, **options: nn.multi_head_attention(heads, **options), sequence,
             {"heads": [*SIZES, 2], "causal": FLAGS, "bias": FLAGS, "fused": FLAGS, "w_init": FUNCTIONS,
              "rotate": [3, "rotary"]}),
    *rows_of("learned_positions", lambda length=9, **options: nn.learned_positions(length, **options), sequence,
             {"length": [*SIZES, 4], "w_init": FUNCTIONS}),
    *(row for name, layer in {"rnn": nn.rnn, "lstm": nn.lstm, "gru": nn.gru}.items()
      for row in rows_of(name, lambda features=2, layer=layer, **options: layer(features, **options), sequence,
                         {"features": SIZES, "reverse": FLAGS, "last": FLAGS, "w_init": FUNCTIONS})),
    *rows_of("gated_dense", lambda features=2, **options: nn.gated_dense(features, **options), x,
             {"features": SIZES, "bias": FLAGS, "w_init": FUNCTIONS, "activation": FUNCTIONS}),
    *rows_of("maxout", lambda features=2, **options: nn.maxout(features, **options), x,
             {"features": SIZES, "pieces": SIZES, "w_init": FUNCTIONS}),
    *rows_of("drop_path", lambda rate=0.5: nn.drop_path(rate), x, {"rate": RATES}),
    *rows_of("transformer", lambda features=3, depth=1, heads=1, **options:
             nn.transformer(features, depth, heads, **options), sequence,
             {"features": [*SIZES, 4], "depth": SIZES, "heads": [*SIZES, 2], "causal": FLAGS, "dropout": RATES,
              "hidden": [size for size in SIZES if size is not None], "activation": FUNCTIONS}),
    *rows_of("resnet", lambda outputs=2, blocks=(1,), width=2, **options:
             nn.resnet(outputs, blocks=blocks, width=width, **options), image,
             {"outputs": SIZES, "width": SIZES, "blocks": [3, "22", None, (0,), (1.5,)], "stem": ["big", None],
              "norm": ["layer", None, 3]}),
    *rows_of("autoencoder", lambda hidden=(3,), code=2, **options: nn.autoencoder(hidden, code, **options), x,
             {"hidden": _hidden, "code": SIZES, "activation": FUNCTIONS}),
    *rows_of("with_precision", lambda **dtypes: nn.with_precision(nn.dense(2), **dtypes), x,
             dict.fromkeys(("param", "compute", "output"), DTYPES)),
    Row("repeat(n)", lambda v: use(nn.repeat(v, nn.dense(3))), SIZES),
]  # fmt: skip

JOINED = [
    *(Row(f"{name}(layer)", lambda v, join=join: use(join(v)), LAYERS)
      for name, join in {
          "serial": nn.serial, "residual": nn.residual, "concat": nn.concat, "remat": nn.remat, "frozen": nn.frozen,
          "branch": lambda v: nn.branch(v, merge=sum), "repeat": lambda v: nn.repeat(2, v),
          "with_precision": nn.with_precision, "as_layer": nn.as_layer, "summary": lambda v: nn.summary(v, x),
      }.items()),
    Row("residual(shortcut)", lambda v: use(nn.residual(nn.dense(3), shortcut=v)), [3, "a", nn.dense]),
    Row("residual(width)", lambda v: use(nn.residual(nn.dense(v))), [2, 4]),
    Row("concat(axis)", lambda v: use(nn.concat(nn.dense(3), nn.dense(2), axis=v)), ["a", None, 5, 1.5, 0, True]),
    Row("branch(merge)", lambda v: use(nn.branch(nn.dense(3), merge=v)), [3, None, "a", lambda ys: None]),
    Row("<lambda>(output)", lambda v: use(nn.serial(nn.dense(3), lambda x: v)), [None, 3.0, "a"]),
    Row("broken(pair)", lambda v: use(nn.serial(nn.Layer("broken", lambda k, x: ((), ()), v))),
        [lambda p, s, x, *, train, key=None: x, lambda p, s, x, *, train, key=None: (x, (), ())]),
    Row("broken(start)", lambda v: use(nn.serial(nn.Layer("broken", v, None))), [lambda k, x: {}, lambda k, x: None]),
    Row("initializers(shape)", lambda v: nn.initializers.he_normal()(key, v),
        [(), (3,), 3, "a", None, (0, 2), (2, -1), (2.5, 3)]),
    Row("initializers(key)", lambda v: nn.initializers.he_normal()(v, (2, 3)), KEYS),
    Row("initializers(dtype)", lambda v: nn.initializers.he_normal()(key, (2, 3), v), DTYPES),
    Row("initializers(inputs)", lambda v: nn.initializer_for(None, v)(key, (3, 2)), [0, -1, 2.5, True, "a", 4]),
    Row("initializer_for(activation)", nn.initializer_for, [3, "relu"]),
    Row("scaled(init)", lambda v: nn.initializers.scaled(v, 0.5), FUNCTIONS),
    Row("scaled(factor)", lambda v: nn.initializers.scaled(nn.initializers.he_normal(), v), [*NUMBERS, -1]),
]  # fmt: skip

APPLIED = {  # layer, an input, and the wrong inputs that are right for this layer
    "dense": (nn.dense(2), x, []),
    "conv": (nn.conv(2, 3), image, []),
    "max_pool": (nn.max_pool(2), image, []),
    "avg_pool": (nn.avg_pool(2), image, []),
    "global_avg_pool": (nn.global_avg_pool(), image, []),
    "batch_norm": (nn.batch_norm(), x, []),
    "layer_norm": (nn.layer_norm(), x, []),
    "dropout": (nn.dropout(0.5), x, [6, 10]),
    "embedding": (nn.embedding(5, 2), indices, [7]),
    "scale": (nn.scale(), x, []),
    "flatten": (nn.flatten(), x, [7, 8, 9, 10, 11]),
    "reshape": (nn.reshape((3,)), x, [7, 8, 9]),
    "first_features": (nn.first_features(2), x, []),
    "rms_norm": (nn.rms_norm(), x, []),
    "group_norm": (nn.group_norm(1), x, []),
    "instance_norm": (nn.instance_norm(), image, []),
    "conv_transpose": (nn.conv_transpose(2, 3), image, []),
    "upsample": (nn.upsample(2), image, []),
    "multi_head_attention": (nn.multi_head_attention(1), sequence, []),
    "sinusoidal_positions": (nn.sinusoidal_positions(), sequence, []),
    "learned_positions": (nn.learned_positions(9), sequence, []),
    "rnn": (nn.rnn(2), sequence, []),
    "lstm": (nn.lstm(2), sequence, []),
    "gru": (nn.gru(2), sequence, []),
    "bidirectional": (nn.bidirectional(nn.rnn(2), nn.rnn(2, reverse=True)), sequence, []),
    "gated_dense": (nn.gated_dense(2), x, []),
    "maxout": (nn.maxout(2), x, []),
    "weight_norm": (nn.weight_norm(nn.dense(2)), x, []),
    "spectral_norm": (nn.spectral_norm(nn.dense(2)), x, []),
    "named": (nn.named(a=nn.dense(2)), x, []),
    "transformer": (nn.transformer(3, 1, 1), sequence, []),
    "language_model": (nn.language_model(5, 2, 1, 1), indices, [7]),
    "resnet": (nn.resnet(2, blocks=(1,), width=2), image, []),
    "autoencoder": (nn.autoencoder([3], 2), x, []),
    "mlp": (nn.mlp([3], 2), x, []),
    "residual_mlp": (nn.residual_mlp(3, 2, 2), x, []),
    "serial": (nn.serial(nn.dense(2)), x, []),
    "residual": (nn.residual(nn.dense(3)), x, []),
    "repeat": (nn.repeat(2, nn.dense(3)), x, []),
    "with_precision": (nn.with_precision(nn.dense(2)), x, []),
    "perceptron": (nn.perceptron(), x, []),
}
APPLIED["flatten"] = (nn.flatten(), x, [7, 8, 9, 10])


def applied_rows(name: str) -> list[Row]:
    layer, right, accepted = APPLIED[name]
    params, state = layer.init(key, right)
    wrong = [value for i, value in enumerate(INPUTS) if i not in accepted]
    apply = lambda p, s, x: layer.apply(p, s, x, train=True, key=key)  # noqa: E731
    rows = [Row(f"{name}(apply x)", lambda v: apply(params, state, v), wrong)]
    rows += [Row(f"{name}(call)", lambda v: layer(*v), [(right,), (params, state, right)])]
    if jax.tree.leaves(params):
        rows += [
            Row(f"{name}(init x)", lambda v: layer.init(key, v), wrong),
            Row(f"{name}(init key)", lambda v: layer.init(v, right), KEYS),
            Row(f"{name}(params)", lambda v: apply(v, state, right), PARAMS),
        ]
    if jax.tree.leaves(state):
        other = {"mean": jnp.ones(9), "var": jnp.ones(9)}
        rows += [Row(f"{name}(state)", lambda v: apply(params, v, right), [(), None, {}, other])]
    if name == "dropout":
        rows += [Row("dropout(key)", lambda v: layer.apply((), (), x, train=True, key=v), KEYS)]
    return rows


def _curve(**change):
    return uncertainty.ensemble_size_curve(**({"logits": MEMBERS, "y": LABELS, "key": key} | change))


_mc_net = nn.serial(nn.dropout(0.5, always=True), nn.dense(2))
_mc = dict(zip(("params", "state"), _mc_net.init(key, x), strict=True)) | {"net": _mc_net, "x": x, "key": key, "n": 3}
_pairs = [*ARRAYS, jnp.ones((4, 2)), jnp.ones((4, 3, 1))]
_labels = [*ARRAYS, jnp.ones((4, 2)), jnp.ones(4), jnp.ones(4, bool), jnp.ones((4, 1), int), jnp.ones((4, 3), int)]
_logits = [*ARRAYS, jnp.ones((4, 0)), jnp.ones(4)]
# One output per row is the logit of class 1
_several = [v for v in _logits if getattr(v, "shape", ()) != LABELS.shape]
_members = ["a", None, {}, 3.0, key, jnp.ones(()), jnp.ones((4, 3)), jnp.ones((1, 2, 4, 3)), jnp.ones((0, 4, 3)),
            jnp.ones((2, 4, 0)), *(jnp.ones((2, 4, 3), dtype) for dtype in (int, bool, jnp.complex64))]  # fmt: skip
_vectors = ["a", {}, key, 3.0, jnp.ones((4, 1)), jnp.ones(3), jnp.ones(()), jnp.ones(4, jnp.complex64)]

COMPUTED = [
    *(Row(f"{loss.__name__}(prediction)", lambda v, loss=loss: loss(v, LOGITS), _pairs)
      for loss in (losses.squared_error, losses.mean_squared_error, losses.huber, losses.binary_cross_entropy)),
    *(Row(f"{loss.__name__}(target)", lambda v, loss=loss: loss(LOGITS, v), _pairs)
      for loss in (losses.squared_error, losses.mean_squared_error, losses.huber, losses.binary_cross_entropy)),
    Row("huber(delta)", lambda v: losses.huber(LOGITS, LOGITS, delta=v), POSITIVE),
    Row("cross_entropy(prediction)", lambda v: losses.cross_entropy(v, LABELS), _logits),
    Row("cross_entropy(target)", lambda v: losses.cross_entropy(LOGITS, v), _labels),
    Row("cross_entropy(label_smoothing)", lambda v: losses.cross_entropy(LOGITS, LABELS, label_smoothing=v),
        [*NUMBERS, -0.1, 1.1]),
    *(Row(f"{metric.__name__}({argument})", lambda v, metric=metric, call=call: call(metric, v), values)
      for metric in (metrics.accuracy, metrics.nll, metrics.brier, metrics.expected_calibration_error,
                     metrics.reliability)
      for argument, call, values in (("prediction", lambda metric, v: metric(v, LABELS), _several),
                                     ("target", lambda metric, v: metric(LOGITS, v), _labels),
                                     ("weights", lambda metric, v: metric(LOGITS, LABELS, v), PER_EXAMPLE))),
    *(Row(f"{metric.__name__}({argument})", lambda v, metric=metric, call=call: call(metric, v), values)
      for metric in (metrics.rmse, metrics.r2)
      for argument, call, values in (("prediction", lambda metric, v: metric(v, LOGITS), _pairs),
                                     ("target", lambda metric, v: metric(LOGITS, v), _pairs),
                                     ("weights", lambda metric, v: metric(LOGITS, LOGITS, v), PER_EXAMPLE))),
    *(Row(f"{metric.__name__}(bins)", lambda v, metric=metric: metric(LOGITS, LABELS, bins=v), SIZES)
      for metric in (metrics.expected_calibration_error, metrics.reliability)),
    Row("weighted_mean(values)", metrics.weighted_mean,
        ["a", None, {}, 3.0, key, jnp.ones(()), jnp.ones((2, 2)), jnp.ones(3, jnp.complex64)]),
    Row("weighted_mean(weights)", lambda v: metrics.weighted_mean(jnp.ones(4), v), PER_EXAMPLE),
    Row("softmax(x)", nn.softmax, ["a", None, {}, jnp.ones(()), jnp.ones((2, 0)), jnp.ones(3, jnp.complex64)]),
    Row("heaviside(x)", nn.heaviside, ["a", None, {}, jnp.ones(3, jnp.complex64)]),
    Row("summary(x)", lambda v: nn.summary(nn.dense(2), v), INPUTS),
    *(Row(f"{f.__name__}(logits)", f, _members)
      for f in (uncertainty.entropy_decomposition, uncertainty.log_mean_probabilities, uncertainty.mean_logits,
                uncertainty.vote)),
    Row("variance_decomposition(means)", uncertainty.variance_decomposition, _members),
    Row("variance_decomposition(variances)", lambda v: uncertainty.variance_decomposition(MEMBERS, v),
        [jnp.ones((2, 4, 1)), *(value for value in _members if value is not None)]),
    Row("rejection_curve(score)", lambda v: uncertainty.rejection_curve(v, jnp.ones(4)), [None, *_vectors]),
    Row("rejection_curve(uncertainty)", lambda v: uncertainty.rejection_curve(jnp.ones(4), v), [None, *_vectors]),
    Row("rejection_curve(weights)", lambda v: uncertainty.rejection_curve(jnp.ones(4), jnp.ones(4), v), _vectors),
    *(Row(f"ensemble_size_curve({name})", lambda v, name=name: _curve(**{name: v}), values)
      for name, values in {"logits": _members, "y": _labels, "key": KEYS, "weights": PER_EXAMPLE, "repeats": SIZES,
                           "sizes": [3, 0, [], [0], [3], [1.5], ["a"], "12", [True], [None], {}]}.items()),
    *(Row(f"mc_dropout({name})", lambda v, name=name: uncertainty.mc_dropout(**(_mc | {name: v})), values)
      for name, values in {"net": LAYERS, "params": [(), None, {}, 3], "state": [(), None, {}, 3], "x": INPUTS,
                           "key": KEYS, "n": SIZES}.items()),
]  # fmt: skip


def complaint(row: Row, value: Any) -> str | None:
    """Return what is wrong with the outcome of a call: it is accepted, or its message is not one of this library."""
    try:
        row.call(value)
    except (TypeError, ValueError) as error:
        text = str(error)
        if not re.match(r"[a-z_0-9<>]+(\([^:]*\))?: ", text):
            return f"{type(error).__name__}: {text[:90]}"
        return None
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:90]}"
    return "accepted"


def check(rows: list[Row]) -> None:
    outcomes = [(row, value, complaint(row, value)) for row in rows for value in row.values]
    wrong = [f"{row.argument} = {value!r:.40}: {text}" for row, value, text in outcomes if text]
    assert not wrong, f"{len(wrong)} of {len(outcomes)} wrong calls: " + "; ".join(wrong[:10])


@pytest.mark.parametrize("row", [*BUILT, *JOINED, *COMPUTED], ids=lambda row: row.argument)
def test_wrong_arguments_are_named(row):
    check([row])


@pytest.mark.parametrize("name", APPLIED)
def test_wrong_inputs_keys_and_parameters_are_named(name):
    check(applied_rows(name))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: nn.mlp(3, 2), r"^mlp: hidden must be a sequence such as \[128, 128\], got 3"),
        (lambda: nn.dense(3)(x), r"^dense\(3\): a layer is not called; use params, state = net.init\(key, x\) once"),
        (lambda: nn.serial(nn.flatten), r"^serial: got the function flatten, which builds a layer; call it"),
        (lambda: nn.dense(2).apply(nn.dense(3).init(key, x)[0], (), x, train=False),
         r"^dense\(2\): params\['w'\] must have the shape \(inputs, 2\), got \(3, 3\)"),
        (lambda: nn.dense(2).apply((), (), x, train=False), r"^dense\(2\): params must be a dict of w, b, as returned"),
        (lambda: nn.dense(2, w_init="he"), r"^dense\(2\): w_init must be a function such as nn\.initializers"),
        (lambda: nn.dropout(True), r"^dropout: rate must be one number, got True"),
        (lambda: nn.serial(nn.Layer("a", lambda key, x: ((), ()), lambda p, s, x, train: (x, s))),
         r"^serial: apply of a must be a function \(params, state, x, \*, train, key\), but <lambda> takes \(p, s, x,"),
        (lambda: nn.serial(nn.Layer("a", lambda key: ((), ()), nn.dense(2).apply)),
         r"^serial: init of a must be a function \(key, x\), but <lambda> takes \(key\)"),
        (lambda: nn.serial(nn.dense(2)).apply(({},), (), x, train=False), "got 0 entries; pass the state that init"),
        (lambda: nn.with_precision(nn.dense(2), compute="float33"), "compute must be a floating dtype .* 'float33'"),
    ],
)  # fmt: skip
def test_message(call, says):
    with pytest.raises((TypeError, ValueError), match=says):
        call()


@pytest.mark.parametrize(
    ("module", "name", "right"),
    [
        (nn, "Dense", "nn.dense"),
        (nn, "Linear", "nn.dense"),
        (nn, "relu", "jax.nn.relu"),
        (nn, "log_softmax", "jax.nn.log_softmax"),
        (nn, "Sequential", "nn.serial"),
        (nn, "BatchNorm", "nn.batch_norm"),
        (losses, "mse", "losses.mean_squared_error"),
        (losses, "CrossEntropyLoss", "losses.cross_entropy"),
        (losses, "bce", "losses.binary_cross_entropy"),
        (metrics, "ece", "metrics.expected_calibration_error"),
        (metrics, "acc", "metrics.accuracy"),
        (uncertainty, "entropy", "uncertainty.entropy_decomposition"),
    ],
)
def test_names_of_other_libraries(module, name, right):
    with pytest.raises(AttributeError, match=rf"has no attribute '{name}'; (use|did you mean) {re.escape(right)}"):
        getattr(module, name)


def test_a_name_without_a_neighbour_lists_all():
    with pytest.raises(AttributeError, match=r"nnjax\.losses' has no attribute 'xyz'; it has binary_cross_entropy, "):
        losses.xyz  # noqa: B018
    assert not hasattr(nn, "__wrapped__")


def test_confusion_checks_its_labels():
    names = ["a", "b", "c"]
    for labels in (np.array([0, 1, 2, 3]), np.array([0, -1, 1, 1]), np.array([0.0, 1, 2, 1]), np.array([0, 1])):
        with pytest.raises((TypeError, ValueError), match=r"^confusion: "):
            plot.confusion(np.ones((4, 3)), labels, names)
    with pytest.raises(ValueError, match=r"^confusion: .* 3 classes"):
        plot.confusion(np.ones((4, 2)), np.array([0, 1, 1, 1]), names)


def test_checks_accept_what_is_right():
    assert checks.flag("f", "a", np.True_) is True
    assert checks.items("f", "a", jnp.arange(2), "[1]")[1] == 1
    assert checks.in_range("f", "a", np.float32(0.5), "[0, 1]") == 0.5
