"""Weights from Flax and back, in linen and nnx: outputs are equal. Its modules as layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interop_weights import Case, array, compare, redrawn

from nnjax import interop, losses, nn, optim, train

linen = pytest.importorskip("flax.linen")
nnx = pytest.importorskip("flax.nnx")
IMAGE, SEQUENCE, ROWS, TOKENS = array(3, 9, 8, 4), array(3, 5, 6), array(3, 6), np.arange(12).reshape(3, 4) % 7


def redraw(tree):
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [jnp.asarray(redrawn(leaf, i)) for i, leaf in enumerate(leaves)])


def linen_case(net, x, module, *, call=lambda m, x, **options: m(x, **options), options=None, **fields):
    """Return the case of a linen module, or of a function that makes it with the dtype of its carry."""
    options = options or {}
    make = module if not isinstance(module, linen.Module) else lambda dtype: module
    x32 = jnp.asarray(x, jnp.int32 if x.dtype.kind == "i" else jnp.float32)

    def weights():
        method = functools.partial(call, **options)
        return redraw(make(jnp.float32).init(jax.random.key(0), x32, method=method))

    def forward(variables, x):
        return make(jnp.result_type(float)).apply(variables, x, method=functools.partial(call, **options))

    return Case(net, x, weights, forward, **fields)


def nnx_case(net, x, make, *, call=lambda m, x: m(x), **fields):
    """Return the case of a module, made from random streams and perhaps the dtype of its carry."""
    with_dtype = make.__code__.co_argcount == 2

    def weights():
        return redraw(nnx.state(make(nnx.Rngs(0), *[jnp.float32] * with_dtype)))

    def forward(state, x):
        module = make(nnx.Rngs(1), *[jnp.result_type(float)] * with_dtype)
        nnx.update(module, state)
        module.eval()
        return call(module, x)

    return Case(net, x, weights, forward, **fields)


def positions(m, x):
    return x + m(jnp.arange(5))[None]


class ResNet(linen.Module):
    """Convolutions and norms in two blocks, one with a shortcut, and a dense layer on the flattened image."""

    @linen.compact
    def __call__(self, x, train):
        norm = functools.partial(linen.BatchNorm, use_running_average=not train, epsilon=1e-5)
        x = linen.relu(norm()(linen.Conv(8, (3, 3), use_bias=False)(x)))
        for features in (8, 16):
            y = linen.relu(norm()(linen.Conv(features, (3, 3), use_bias=False)(x)))
            y = norm()(linen.Conv(features, (3, 3), use_bias=False)(y))
            if features == 16:
                x = norm()(linen.Conv(features, (1, 1), use_bias=False)(x))
            x = linen.relu(x + y)
        return linen.Dense(3)(x.reshape(len(x), -1))


def block(features, shortcut=None):
    conv = functools.partial(nn.conv, features, (3, 3), bias=False)
    return nn.serial(
        nn.residual(conv(), nn.batch_norm(), jax.nn.relu, conv(), nn.batch_norm(), shortcut=shortcut), jax.nn.relu
    )


RESNET = nn.serial(
    nn.conv(8, (3, 3), bias=False), nn.batch_norm(), jax.nn.relu, block(8),
    block(16, nn.serial(nn.conv(16, (1, 1), bias=False), nn.batch_norm())), nn.flatten(), nn.dense(3),
)  # fmt: skip


class Deep(linen.Module):
    """Twelve layers, whose names JAX sorts as Dense_0, Dense_1, Dense_10, …"""

    @linen.compact
    def __call__(self, x):
        for _ in range(12):
            x = jnp.tanh(linen.Dense(6)(x))
        return x


class Unordered(nnx.Module):
    """Attributes in the order of use, which is not that of the alphabet."""

    def __init__(self, rngs):
        self.second = nnx.Linear(6, 6, rngs=rngs)
        self.first = nnx.Linear(6, 6, rngs=rngs)

    def __call__(self, x):
        return self.first(self.second(x))


def attend_nnx(rngs):
    attention_fn = linen.dot_product_attention  # nnx's own would round the softmax of float64 to float32
    return nnx.MultiHeadAttention(
        2, 6, decode=False, attention_fn=lambda q, k, v, **_: attention_fn(q, k, v), rngs=rngs
    )


# Flax computes the variance as the mean square minus the square of the mean, unless an option says otherwise
slow = {"epsilon": 1e-5, "use_fast_variance": False}
LINEN = {
    "dense": linen_case(nn.dense(5), ROWS, linen.Dense(5)),
    "maxout": linen_case(
        nn.maxout(4, 3), ROWS, linen.Dense(12), call=lambda m, x: m(x).reshape(-1, 4, 3).max(-1)
    ),
    "conv": linen_case(nn.conv(6, (3, 2)), IMAGE, linen.Conv(6, (3, 2))),
    "conv, one axis": linen_case(nn.conv(6, 3, strides=2), SEQUENCE, linen.Conv(6, (3,), strides=2)),
    "conv, groups": linen_case(nn.conv(6, (3, 3), groups=2), IMAGE, linen.Conv(6, (3, 3), feature_group_count=2)),
    "conv_transpose": linen_case(
        nn.conv_transpose(6, (3, 2), strides=2, padding="VALID"),
        IMAGE, linen.ConvTranspose(6, (3, 2), strides=(2, 2), padding="VALID"),
    ),
    "embedding": linen_case(nn.embedding(7, 5), TOKENS, linen.Embed(7, 5)),
    "learned_positions": linen_case(nn.learned_positions(9), SEQUENCE, linen.Embed(9, 6), call=positions),
    "batch_norm": linen_case(
        nn.batch_norm(), IMAGE, linen.BatchNorm(epsilon=1e-5), options={"use_running_average": True}
    ),
    "layer_norm": linen_case(nn.layer_norm(), SEQUENCE, linen.LayerNorm(**slow)),
    "layer_norm, no bias": linen_case(nn.layer_norm(), SEQUENCE, linen.LayerNorm(use_bias=False, **slow), redraw=False),
    "rms_norm": linen_case(nn.rms_norm(), SEQUENCE, linen.RMSNorm()),
    "group_norm": linen_case(nn.group_norm(2), IMAGE, linen.GroupNorm(2, **slow)),
    "instance_norm": linen_case(nn.instance_norm(), IMAGE, linen.InstanceNorm(**slow)),
    "multi_head_attention": linen_case(nn.multi_head_attention(2), SEQUENCE, linen.MultiHeadDotProductAttention(2)),
    "multi_head_attention, no bias": linen_case(
        nn.multi_head_attention(3, bias=False), SEQUENCE, linen.MultiHeadDotProductAttention(3, use_bias=False)
    ),
    "rnn": linen_case(nn.rnn(4), SEQUENCE, lambda dtype: linen.RNN(linen.SimpleCell(4, param_dtype=dtype))),
    "lstm": linen_case(nn.lstm(4), SEQUENCE, lambda dtype: linen.RNN(linen.LSTMCell(4, param_dtype=dtype))),
    "lstm, optimized": linen_case(nn.lstm(4), SEQUENCE, lambda dtype: linen.RNN(
            linen.OptimizedLSTMCell(4, param_dtype=dtype))),
    "gru": linen_case(nn.gru(4), SEQUENCE, lambda dtype: linen.RNN(linen.GRUCell(4, param_dtype=dtype))),
    "gru, both ways": linen_case(
        nn.bidirectional(nn.gru(4), nn.gru(4, reverse=True)), SEQUENCE,
        lambda dtype: linen.Bidirectional(*(linen.RNN(linen.GRUCell(4, param_dtype=dtype)) for _ in range(2))),
        names={"0": "forward_rnn/cell", "1": "backward_rnn/cell"},
    ),
    "weight_norm": linen_case(
        nn.serial(nn.dense(4), nn.weight_norm(nn.dense(5))), ROWS,
        linen.Sequential([linen.Dense(4), linen.WeightNorm(linen.Dense(5))]),
    ),
    "weight_norm, conv": linen_case(nn.weight_norm(nn.conv(5, 3)), IMAGE, linen.WeightNorm(linen.Conv(5, (3, 3)))),
    "spectral_norm": linen_case(
        nn.spectral_norm(nn.dense(5)), ROWS, linen.SpectralNorm(linen.Dense(5)), options={"update_stats": False},
        export=False,
    ),
    "spectral_norm, conv": linen_case(
        nn.spectral_norm(nn.conv(5, 3)), IMAGE, linen.SpectralNorm(linen.Conv(5, (3, 3))),
        options={"update_stats": False}, export=False,
    ),
    "resnet": linen_case(RESNET, IMAGE, ResNet(), options={"train": False}),
    "more than ten layers": linen_case(
        nn.serial(*(layer for _ in range(12) for layer in (nn.dense(6), jnp.tanh))), ROWS, Deep()
    ),
    "repeat": linen_case(nn.repeat(12, nn.serial(nn.dense(6), jnp.tanh)), ROWS, Deep()),
}  # fmt: skip
NNX = {
    "dense": nnx_case(nn.dense(5), ROWS, lambda rngs: nnx.Linear(6, 5, rngs=rngs)),
    "maxout": nnx_case(
        nn.maxout(4, 3), ROWS, lambda rngs: nnx.Linear(6, 12, rngs=rngs),
        call=lambda m, x: m(x).reshape(-1, 4, 3).max(-1),
    ),
    "conv, groups": nnx_case(
        nn.conv(6, (3, 3), groups=2), IMAGE, lambda rngs: nnx.Conv(4, 6, (3, 3), feature_group_count=2, rngs=rngs)
    ),
    "conv": nnx_case(nn.conv(6, (3, 2)), IMAGE, lambda rngs: nnx.Conv(4, 6, (3, 2), rngs=rngs)),
    "conv_transpose": nnx_case(
        nn.conv_transpose(6, 3, padding="VALID"), IMAGE,
        lambda rngs: nnx.ConvTranspose(4, 6, (3, 3), padding="VALID", rngs=rngs),
    ),
    "embedding": nnx_case(
        nn.embedding(7, 5), TOKENS, lambda rngs, dtype: nnx.Embed(7, 5, param_dtype=dtype, rngs=rngs)
    ),
    "learned_positions": nnx_case(
        nn.learned_positions(9), SEQUENCE, lambda rngs, dtype: nnx.Embed(9, 6, param_dtype=dtype, rngs=rngs),
        call=positions,
    ),
    "batch_norm": nnx_case(nn.batch_norm(), IMAGE, lambda rngs: nnx.BatchNorm(4, epsilon=1e-5, rngs=rngs)),
    "layer_norm": nnx_case(nn.layer_norm(), SEQUENCE, lambda rngs: nnx.LayerNorm(6, rngs=rngs, **slow)),
    "rms_norm": nnx_case(nn.rms_norm(), SEQUENCE, lambda rngs: nnx.RMSNorm(6, rngs=rngs)),
    "group_norm": nnx_case(nn.group_norm(2), IMAGE, lambda rngs: nnx.GroupNorm(4, 2, rngs=rngs, **slow)),
    "instance_norm": nnx_case(nn.instance_norm(), IMAGE, lambda rngs: nnx.InstanceNorm(4, rngs=rngs, **slow)),
    "multi_head_attention": nnx_case(nn.multi_head_attention(2), SEQUENCE, attend_nnx),
    "rnn": nnx_case(nn.rnn(4), SEQUENCE, lambda rngs, dtype: nnx.RNN(
            nnx.SimpleCell(6, 4, dtype=dtype, param_dtype=dtype, rngs=rngs), rngs=rngs
        )),
    "lstm": nnx_case(nn.lstm(4), SEQUENCE, lambda rngs, dtype: nnx.RNN(
            nnx.LSTMCell(6, 4, param_dtype=dtype, rngs=rngs), rngs=rngs
        )),
    "lstm, optimized": nnx_case(
        nn.lstm(4), SEQUENCE, lambda rngs, dtype: nnx.RNN(
            nnx.OptimizedLSTMCell(6, 4, param_dtype=dtype, rngs=rngs), rngs=rngs
        )
    ),
    "gru": nnx_case(
        nn.gru(4), SEQUENCE, lambda rngs, dtype: nnx.RNN(
            nnx.GRUCell(6, 4, param_dtype=dtype, rngs=rngs), rngs=rngs
        ), redraw=False
    ),
    "weight_norm": nnx_case(
        nn.weight_norm(nn.dense(5)), ROWS, lambda rngs: nnx.WeightNorm(nnx.Linear(6, 5, rngs=rngs), rngs=rngs
        )
    ),
    "spectral_norm": nnx_case(
        nn.spectral_norm(nn.dense(5)), ROWS, lambda rngs: nnx.SpectralNorm(nnx.Linear(6, 5, rngs=rngs), rngs=rngs
        ),
        export=False,
    ),
    "sequential": nnx_case(
        nn.serial(*(nn.dense(6) for _ in range(12))), ROWS,
        lambda rngs: nnx.Sequential(*(nnx.Linear(6, 6, rngs=rngs) for _ in range(12))),
    ),
}  # fmt: skip


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LINEN)
def test_outputs_of_linen_are_equal(name, dtype):
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        compare(interop.flax, LINEN[name], dtype, cast)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NNX)
def test_outputs_of_nnx_are_equal(name, dtype):
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        compare(interop.flax, NNX[name], dtype, cast)


def test_spectral_norm_is_exported_where_its_iteration_ends():
    """Flax makes one more power iteration in prediction, which changes nothing after many of them."""
    net, x = nn.spectral_norm(nn.dense(5), iterations=200), jnp.asarray(ROWS, jnp.float32)
    params, state = net.init(jax.random.key(0), x)
    y, state = net.apply(params, state, x, train=True)
    module = linen.SpectralNorm(linen.Dense(5))
    like = module.init(jax.random.key(1), x, update_stats=False)
    weights = interop.flax.export_weights(net, x, params, state, like=like)
    np.testing.assert_allclose(module.apply(weights, x, update_stats=False), y, atol=1e-5)


def test_statistics_of_training_differ_by_the_unbiased_variance():
    """The decay is Flax's momentum; the batch's variance is n / (n - 1) times Flax's."""
    module, x = linen.BatchNorm(momentum=0.8), jnp.asarray(ROWS, jnp.float32)
    variables = redraw(module.init(jax.random.key(0), x, use_running_average=False))
    params, state = interop.flax.import_weights(nn.batch_norm(decay=0.8), x, variables)
    _, new = nn.batch_norm(decay=0.8).apply(params, state, x, train=True)
    _, theirs = module.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
    np.testing.assert_allclose(new["mean"], theirs["batch_stats"]["mean"], rtol=1e-5)
    batch = theirs["batch_stats"]["var"] - 0.8 * state["var"]
    np.testing.assert_allclose(new["var"], 0.8 * state["var"] + batch * len(x) / (len(x) - 1), rtol=1e-4)


def test_order_of_creation_is_used_if_it_is_known():
    """An nnx module knows it, its state does not."""
    module, x = Unordered(nnx.Rngs(0)), jnp.asarray(ROWS, jnp.float32)
    net = nn.serial(nn.dense(6), nn.dense(6))
    params, state = interop.flax.import_weights(net, x, module)
    np.testing.assert_allclose(net.apply(params, state, x, train=False)[0], module(x), rtol=1e-5)
    lost = r"first/.* and second/.* have equal shapes, and their order is lost, .*; pair them by names=\{'0': …\}"
    with pytest.raises(ValueError, match=lost):
        interop.flax.import_weights(net, x, nnx.state(module))
    named, _ = interop.flax.import_weights(net, x, nnx.state(module), names={"0": "second"})
    jax.tree.map(np.testing.assert_array_equal, named, params)


def test_exported_weights_go_into_the_module():
    net, x = nn.serial(nn.dense(6), nn.dense(6)), jnp.asarray(ROWS, jnp.float32)
    params, state = net.init(jax.random.key(3), x)
    module = Unordered(nnx.Rngs(0))
    nnx.update(module, interop.flax.export_weights(net, x, params, state, like=module))
    np.testing.assert_allclose(net.apply(params, state, x, train=False)[0], module(x), rtol=1e-5)


# Modules as layers ---------------------------------------------------------------------------------------------------


class Network(linen.Module):
    @linen.compact
    def __call__(self, x, *, train, deterministic):
        x = linen.relu(linen.BatchNorm(use_running_average=not train)(linen.Dense(8)(x)))
        return linen.Dense(2)(linen.Dropout(0.5, deterministic=deterministic)(x))


class NnxNetwork(nnx.Module):
    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


LAYERS = {"linen": lambda: interop.flax.from_linen(Network()), "nnx": lambda: interop.flax.from_nnx(NnxNetwork)}
layers = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


@pytest.fixture
def allowed_promotion():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@layers
@pytest.mark.usefixtures("allowed_promotion")
def test_a_module_trains(make):
    x = jnp.asarray(array(64, 6), jnp.float32)
    run = train.Run(make(), losses.cross_entropy, optim.adam(1e-2), batch_size=16)
    result = train.fit(run, (x, (x[:, 0] > 0).astype(jnp.int32)), epochs=5, members=2)
    assert (result.history[-1]["loss"] < result.history[0]["loss"]).all()
    paths = nn.paths(result.ts.params)
    assert {leaf.shape for leaf in paths.values()} >= {(2, 6, 8), (2, 8, 2)}
    assert all(isinstance(name, str) for name in paths)


@layers
@pytest.mark.usefixtures("allowed_promotion")
def test_modes_and_keys_reach_the_module(make):
    net, x, key = make(), jnp.asarray(ROWS, jnp.float32), jax.random.key(0)
    params, state = net.init(key, jax.ShapeDtypeStruct(x.shape, x.dtype))
    again = net.init(key, x)
    jax.tree.map(np.testing.assert_array_equal, (params, state), again)
    one, two = (net.apply(params, state, x, train=True, key=jax.random.key(i)) for i in range(2))
    assert (one[0] != two[0]).any()
    assert jax.tree.structure(one[1]) == jax.tree.structure(state)
    still, same = net.apply(params, state, x, train=False)
    np.testing.assert_array_equal(still, net.apply(params, state, x, train=False, key=key)[0])
    jax.tree.map(np.testing.assert_array_equal, same, state)


@pytest.mark.usefixtures("allowed_promotion")
def test_a_linen_module_is_that_module():
    net, x = interop.flax.from_linen(Network()), jnp.asarray(ROWS, jnp.float32)
    params, state = net.init(jax.random.key(0), x)
    y = Network().apply({"params": params, **state}, x, train=False, deterministic=True)
    np.testing.assert_array_equal(net.apply(params, state, x, train=False)[0], y)
    plain = interop.flax.from_linen(linen.Dense(2))
    params, state = plain.init(jax.random.key(0), x)
    assert state == ()
    assert plain.apply(params, state, x, train=True)[1] == ()


@pytest.mark.usefixtures("allowed_promotion")
def test_an_nnx_module_gets_the_parameters():
    net, x = interop.flax.from_nnx(NnxNetwork), jnp.asarray(ROWS, jnp.float32)
    params, state = net.init(jax.random.key(0), x)
    module = NnxNetwork(nnx.Rngs(7))
    nnx.update(module, params, state)
    module.eval()
    np.testing.assert_array_equal(net.apply(params, state, x, train=False)[0], module(x))


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match=r"from_linen: expected a flax.linen.Module, got NnxNetwork.*; see from_nnx"):
        interop.flax.from_linen(NnxNetwork(nnx.Rngs(0)))
    with pytest.raises(
        TypeError, match=r"from_nnx: make_module must be a function of nnx.Rngs .*, got a module, NnxNetwork"
    ):
        interop.flax.from_nnx(NnxNetwork(nnx.Rngs(0)))
    with pytest.raises(TypeError, match=r"interop.flax: expected variables, an nnx.Module or an nnx.State, got int"):
        interop.flax.import_weights(nn.dense(3), jnp.ones((1, 4)), 3)
