"""Tables of layers, losses and optimizers. A new row is tested for every property."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
from jax.extend.core import jaxprs_in_params

from nnjax import losses, nn, optim

# Layers --------------------------------------------------------------------------------------------------------------


class LayerCase(NamedTuple):
    name: str
    layer: nn.Layer
    shape: tuple[int, ...]  # shape of an input, batch axis included
    integers: bool = False  # whether the input is integers below 5
    random: bool = False  # whether it draws random numbers in training
    follows_dtype: bool = True  # whether it computes in the dtype of its input
    trained_gradient: bool = True  # whether the gradient in training sees all that depends on the parameters
    moves: bool = True  # training changes the state, if there is any
    rtol: float = 2e-5  # relative tolerance for the dtype it computes in


def _shift_init(key, x, /):
    return {"shift": jax.random.normal(jax.random.fold_in(key, 0), x.shape[-1:], x.dtype)}, ()


def _shift_apply(params, state, x, /, *, train, key=None):
    return x + params["shift"][None], state


def first_normals(key, shape, dtype):
    """Initialise with the same first numbers for all shapes, which reveals two parameters with the same key."""
    return jax.random.normal(key, (9,), dtype)[: math.prod(shape)].reshape(shape)


custom = nn.Layer("custom", _shift_init, _shift_apply)
block = nn.residual(nn.layer_norm(), nn.dense(3), jnp.tanh, nn.dense(3))
random_block = nn.residual(nn.dense(3), jnp.tanh, nn.dropout(0.5))

LAYERS = [
    LayerCase("plain function", nn.as_layer(jnp.tanh), (4, 3)),
    LayerCase("identity", nn.identity(), (4, 3)),
    LayerCase("custom", custom, (4, 3)),
    LayerCase("relu", nn.as_layer(jax.nn.relu), (4, 3)),
    LayerCase("softmax", nn.as_layer(nn.softmax), (4, 3)),
    LayerCase("heaviside", nn.as_layer(nn.heaviside), (4, 3)),
    LayerCase("dense", nn.dense(2), (4, 3)),
    LayerCase("dense, positions", nn.dense(2), (4, 5, 3)),
    LayerCase("dense, no bias", nn.dense(2, bias=False), (4, 3)),
    LayerCase("dense, many outputs", nn.dense(40), (4, 3)),
    LayerCase("dense, features first", nn.dense(2, features_first=True), (4, 5, 3)),
    LayerCase("dense, initialisers", nn.dense(2, w_init=first_normals, b_init=first_normals), (4, 3)),
    LayerCase("conv 1-D", nn.conv(2, 3), (4, 5, 3)),
    LayerCase("conv 2-D", nn.conv(2, (3, 2), strides=(2, 1), padding=((1, 0), (0, 2))), (4, 5, 4, 3)),
    LayerCase("conv, initialisers", nn.conv(2, 1, w_init=first_normals, b_init=first_normals), (4, 5, 3)),
    LayerCase("conv 3-D", nn.conv(2, 2, padding="VALID", bias=False), (2, 3, 2, 3, 2)),
    LayerCase("conv, groups", nn.conv(4, 2, groups=2, dilation=2), (4, 5, 2)),
    LayerCase("max_pool", nn.max_pool(2), (4, 4, 5, 2)),
    LayerCase("max_pool, padded", nn.max_pool((3,), strides=2, padding="SAME"), (4, 5, 2)),
    LayerCase("avg_pool", nn.avg_pool(2), (4, 4, 5, 2)),
    LayerCase("avg_pool, padded", nn.avg_pool((3,), strides=1, padding=((1, 2),)), (4, 5, 2)),
    LayerCase("global_avg_pool", nn.global_avg_pool(), (4, 3, 2, 2)),
    LayerCase("batch_norm", nn.batch_norm(), (4, 3)),
    LayerCase("batch_norm, images", nn.batch_norm(decay=0.5, eps=1e-3), (4, 2, 3, 3)),
    LayerCase("layer_norm", nn.layer_norm(), (4, 3)),
    LayerCase("layer_norm, positions", nn.layer_norm(eps=1e-3), (4, 2, 3)),
    LayerCase("dropout", nn.dropout(0.5), (4, 30), random=True),
    LayerCase("spatial_dropout", nn.spatial_dropout(0.5), (4, 3, 30), random=True),
    LayerCase("drop_path", nn.drop_path(0.5), (30, 3), random=True),
    LayerCase("dropout, rate 0", nn.dropout(0.0), (4, 3)),
    LayerCase("embedding", nn.embedding(5, 2), (4, 3), integers=True),
    LayerCase("scale", nn.scale(0.5), (4, 3)),
    LayerCase("flatten", nn.flatten(), (4, 2, 3)),
    LayerCase("reshape", nn.reshape((3, 2)), (4, 6)),
    LayerCase("reshape to numbers", nn.reshape(()), (4, 1)),
    LayerCase("serial", nn.serial(nn.dense(3), jnp.tanh, nn.dense(3), nn.batch_norm(), nn.dense(2)), (4, 2)),
    LayerCase("serial, empty", nn.serial(), (4, 3)),
    LayerCase("serial, nested", nn.serial(nn.serial(nn.dense(2), nn.scale()), nn.serial(), custom), (4, 3)),
    LayerCase("serial, random", nn.serial(nn.dense(9), nn.dropout(0.5), nn.dropout(0.2)), (4, 3), random=True),
    LayerCase("residual", nn.residual(nn.dense(3), jnp.tanh), (4, 3)),
    LayerCase("residual, shortcut", nn.residual(nn.dense(2), nn.scale(), shortcut=nn.dense(2)), (4, 3)),
    LayerCase("branch", nn.branch(nn.dense(3), nn.dense(3), merge=lambda ys: ys[0] * jnp.tanh(ys[1])), (4, 3)),
    LayerCase("branch, random", nn.branch(nn.dropout(0.5), nn.dropout(0.5), merge=lambda ys: ys[0] * ys[1]), (4, 30),
              random=True),
    LayerCase("concat", nn.concat(nn.dense(2), nn.batch_norm(), jnp.square), (4, 3)),
    LayerCase("repeat", nn.repeat(3, block), (4, 3)),
    LayerCase("repeat, statistics", nn.repeat(2, nn.serial(nn.dense(3, bias=False), nn.batch_norm())), (4, 3)),
    LayerCase("repeat, random", nn.repeat(2, random_block), (4, 3), random=True),
    LayerCase("repeat, nested", nn.repeat(2, nn.repeat(2, nn.dense(3))), (4, 3)),
    LayerCase("remat", nn.remat(nn.serial(nn.dense(3), jnp.tanh, nn.batch_norm())), (4, 3)),
    LayerCase("with_precision", nn.with_precision(nn.serial(nn.dense(3), nn.batch_norm())), (4, 3),
              follows_dtype=False, rtol=5e-2),
    LayerCase("frozen", nn.frozen(nn.serial(nn.dense(3), jnp.tanh, nn.batch_norm(), nn.dropout(0.5))), (4, 3),
              moves=False),
    LayerCase("rms_norm", nn.rms_norm(), (4, 3)),
    LayerCase("rms_norm, positions", nn.rms_norm(eps=1e-3), (4, 2, 3)),
    LayerCase("group_norm", nn.group_norm(2), (4, 2, 3, 4)),
    LayerCase("group_norm, one group", nn.group_norm(1, eps=1e-3), (4, 3)),
    LayerCase("instance_norm", nn.instance_norm(), (4, 5, 3)),
    LayerCase("weight_norm", nn.weight_norm(nn.dense(2)), (4, 3)),
    LayerCase("weight_norm, conv", nn.weight_norm(nn.conv(2, 3)), (4, 5, 3)),
    LayerCase("spectral_norm", nn.spectral_norm(nn.dense(2)), (4, 3), trained_gradient=False),
    LayerCase("spectral_norm, conv", nn.spectral_norm(nn.conv(2, 3), iterations=2), (4, 5, 3),
              trained_gradient=False),
    LayerCase("conv_transpose", nn.conv_transpose(2, 3, strides=2), (4, 5, 3)),
    LayerCase("conv_transpose, images", nn.conv_transpose(2, (3, 2), strides=(1, 2), padding=((1, 0), (0, 1))),
              (2, 3, 4, 3)),
    LayerCase("upsample", nn.upsample(2), (4, 3, 2, 2)),
    LayerCase("upsample, linear", nn.upsample((3, 2), method="linear"), (4, 3, 2, 2)),
    LayerCase("multi_head_attention", nn.multi_head_attention(2), (4, 5, 6)),
    LayerCase("multi_head_attention, causal", nn.multi_head_attention(3, causal=True, rotate=nn.rotary(), bias=False),
              (4, 5, 6)),
    LayerCase("sinusoidal_positions", nn.sinusoidal_positions(), (4, 5, 3)),
    LayerCase("learned_positions", nn.learned_positions(7), (4, 5, 3)),
    LayerCase("rnn", nn.rnn(2), (4, 5, 3)),
    LayerCase("lstm", nn.lstm(2, reverse=True), (4, 5, 3)),
    LayerCase("gru", nn.gru(2, last=True), (4, 5, 3)),
    LayerCase("bidirectional", nn.bidirectional(nn.rnn(2), nn.gru(2, reverse=True)), (4, 5, 3)),
    LayerCase("gated_dense", nn.gated_dense(2, activation=jax.nn.silu), (4, 3)),
    LayerCase("maxout", nn.maxout(2, 3), (4, 3)),
    LayerCase("named", nn.named(body=nn.serial(nn.dense(3), jnp.tanh, nn.batch_norm()), head=nn.dense(2)), (4, 3)),
    LayerCase("named, random", nn.named(a=nn.dense(9), b=nn.dropout(0.5), c=nn.dropout(0.2)), (4, 3), random=True),
    LayerCase("transformer", nn.transformer(8, 2, 2), (3, 5, 8)),
    LayerCase("transformer, random", nn.transformer(4, 1, 2, dropout=0.5, causal=True), (3, 5, 4), random=True),
    LayerCase("language_model", nn.language_model(5, 4, 1, 2), (4, 3), integers=True),
    LayerCase("language_model, not tied", nn.language_model(5, 4, 1, 2, tied=False), (4, 3), integers=True),
    LayerCase("resnet", nn.resnet(2, blocks=(1, 1), width=2), (2, 4, 4, 1)),
    LayerCase("resnet, large stem", nn.resnet(2, blocks=(1, 1), width=8, stem="large", norm="group"), (2, 16, 16, 1)),
    LayerCase("autoencoder", nn.autoencoder([3], 2), (4, 2, 3)),
    LayerCase("perceptron", nn.perceptron(jnp.tanh), (4, 3)),
    LayerCase("mlp", nn.mlp([3, 2], 2), (4, 2, 2)),
    LayerCase("mlp, norm", nn.mlp([3], 2, norm="layer", activation=jnp.tanh), (4, 3)),
    LayerCase("residual_mlp", nn.residual_mlp(3, 2, 2), (4, 2)),
    LayerCase("residual_mlp, random", nn.residual_mlp(8, 2, 2, norm="batch", dropout=0.5), (4, 2), random=True),
    LayerCase("lenet", nn.lenet(2), (2, 12, 12, 1)),
]  # fmt: skip

# Losses --------------------------------------------------------------------------------------------------------------


class LossCase(NamedTuple):
    name: str
    loss: Callable[[Any, Any], Any]
    target: Callable[[np.random.Generator], np.ndarray]
    reference: Callable[[np.ndarray, np.ndarray], np.ndarray]  # the formula in NumPy and SciPy
    shape: tuple[int, ...] = (4, 3)  # shape of a prediction


def _real(shape: tuple[int, ...]):
    return lambda rng: rng.normal(size=shape)


def _labels(*rows: int):
    return lambda rng: rng.integers(0, 3, rows)


def _probabilities(rng: np.random.Generator) -> np.ndarray:
    return rng.dirichlet(np.ones(3), 4)


def _yes_or_no(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 2, (4, 3))


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)


def _reference_squared(z, t):
    return _rows((z - t) ** 2).sum(1)


def _reference_mean_squared(z, t):
    return _rows((z - t) ** 2).mean(1)


def _reference_huber(z, t, delta):
    return _rows(scipy.special.huber(delta, z - t)).sum(1)


def _reference_cross_entropy(z, t, smoothing=0.0):
    q = np.eye(z.shape[-1])[t] if np.issubdtype(t.dtype, np.integer) else t
    q = (1 - smoothing) * q + smoothing / z.shape[-1]
    return _rows(-(q * scipy.special.log_softmax(z, -1)).sum(-1)).mean(1)


def _reference_binary(z, t):
    return _rows(-(t * scipy.special.log_expit(z) + (1 - t) * scipy.special.log_expit(-z))).sum(1)


def _of_positions(reference, weights):
    """Return the reference of a loss with a weight for each position, which is a function of its label."""

    def weighted(z, t):
        values = reference(z.reshape(-1, 1, z.shape[-1]), t.reshape(-1, 1)).reshape(t.shape)
        w = np.asarray(weights)[t]
        return (w * values).sum(1) / np.maximum(w.sum(1), 1e-9)

    return weighted


def _reference_focal(z, t):
    log_p = np.take_along_axis(scipy.special.log_softmax(z, -1), t[..., None], -1)[..., 0]
    return _rows(-((1 - np.exp(log_p)) ** 1.5) * log_p).mean(1)


def _reference_kl(z, t):
    return _rows((scipy.special.xlogy(t, t) - t * scipy.special.log_softmax(z, -1)).sum(-1)).mean(1)


def _reference_poisson(z, t):
    return _rows(np.exp(z) - t * z + scipy.special.gammaln(t + 1)).sum(1)


def _reference_cosine(z, t):
    return _rows(1 - (z * t).sum(-1) / np.linalg.norm(z, axis=-1) / np.linalg.norm(t, axis=-1)).mean(1)


_smooth = functools.partial(losses.cross_entropy, label_smoothing=0.1)
_reference_smooth = functools.partial(_reference_cross_entropy, smoothing=0.1)
_all_smooth = functools.partial(losses.cross_entropy, label_smoothing=1.0)
_huber = functools.partial(losses.huber, delta=0.3)
_focal = functools.partial(losses.focal, gamma=1.5)
_IGNORED, _WEIGHTS = (1.0, 1.0, 0.0), (0.5, 2.0, 0.0)  # by label


def _weigh(loss):
    return lambda z, t: loss(z, (t, jnp.asarray(_WEIGHTS, z.dtype)[jnp.asarray(t, jnp.int32)]))


LOSSES = [
    LossCase("squared_error", losses.squared_error, _real((4, 3)), _reference_squared),
    LossCase("squared_error, numbers", losses.squared_error, _real((4,)), _reference_squared, (4,)),
    LossCase("squared_error, images", losses.squared_error, _real((4, 2, 3)), _reference_squared, (4, 2, 3)),
    LossCase("mean_squared_error", losses.mean_squared_error, _real((4, 3)), _reference_mean_squared),
    LossCase("mean_squared_error, images", losses.mean_squared_error, _real((4, 2, 3)), _reference_mean_squared,
             (4, 2, 3)),
    LossCase("huber", losses.huber, _real((4, 3)), functools.partial(_reference_huber, delta=1.0)),
    LossCase("huber, delta", _huber, _real((4, 3)), functools.partial(_reference_huber, delta=0.3)),
    LossCase("cross_entropy, labels", losses.cross_entropy, _labels(4), _reference_cross_entropy),
    LossCase("cross_entropy, probabilities", losses.cross_entropy, _probabilities, _reference_cross_entropy),
    LossCase("cross_entropy, positions", losses.cross_entropy, _labels(4, 5), _reference_cross_entropy, (4, 5, 3)),
    LossCase("cross_entropy, smoothed", _smooth, _labels(4), _reference_smooth),
    LossCase("cross_entropy, smoothed probabilities", _smooth, _probabilities, _reference_smooth),
    LossCase("cross_entropy, all smooth", _all_smooth, _labels(4),
             functools.partial(_reference_cross_entropy, smoothing=1.0)),
    LossCase("binary_cross_entropy", losses.binary_cross_entropy, _yes_or_no, _reference_binary),
    LossCase("binary_cross_entropy, probabilities", losses.binary_cross_entropy, _probabilities, _reference_binary),
    LossCase("cross_entropy, ignored", functools.partial(losses.cross_entropy, ignore_index=2), _labels(4, 5),
             _of_positions(_reference_cross_entropy, _IGNORED), (4, 5, 3)),
    LossCase("cross_entropy, ignored examples", functools.partial(losses.cross_entropy, ignore_index=2),
             lambda rng: np.array([0, 2, 1, 2]), lambda z, t: (t != 2) * _reference_cross_entropy(z, t)),
    LossCase("cross_entropy, ignored, smoothed", functools.partial(_smooth, ignore_index=2), _labels(4, 5),
             _of_positions(_reference_smooth, _IGNORED), (4, 5, 3)),
    LossCase("cross_entropy, per-position weights", _weigh(losses.cross_entropy), _labels(4, 5),
             _of_positions(_reference_cross_entropy, _WEIGHTS), (4, 5, 3)),
    LossCase("binary_cross_entropy, numbers", losses.binary_cross_entropy, lambda rng: rng.integers(0, 2, 4),
             _reference_binary, (4,)),
    LossCase("mean_absolute_error", losses.mean_absolute_error, _real((4, 3)), lambda z, t: np.abs(z - t).mean(1)),
    LossCase("quantile", functools.partial(losses.quantile, q=0.8), _real((4, 3)),
             lambda z, t: np.where(t > z, 0.8 * (t - z), 0.2 * (z - t)).sum(1)),
    LossCase("poisson_nll", losses.poisson_nll, lambda rng: rng.poisson(2.0, (4, 3)).astype(float), _reference_poisson),
    LossCase("kl_divergence", losses.kl_divergence, _probabilities, _reference_kl),
    LossCase("focal", _focal, _labels(4), _reference_focal),
    LossCase("focal, positions", _focal, _labels(4, 5), _reference_focal, (4, 5, 3)),
    LossCase("focal, ignored", functools.partial(_focal, ignore_index=2), _labels(4, 5),
             _of_positions(_reference_focal, _IGNORED), (4, 5, 3)),
    LossCase("hinge", losses.hinge, lambda rng: rng.choice([-1.0, 1.0], (4, 3)),
             lambda z, t: np.maximum(1 - t * z, 0).sum(1)),
    LossCase("cosine_distance", losses.cosine_distance, _real((4, 3)), _reference_cosine),
]  # fmt: skip

# Optimizers ----------------------------------------------------------------------------------------------------------


class OptimizerCase(NamedTuple):
    """Our optimizer and optax's, as functions of the learning rate and the same hyper-parameters."""

    name: str
    ours: Callable[..., optim.sgd]
    optax: Callable[..., optax.GradientTransformation]
    hyper: dict[str, float]  # all numerical hyper-parameters except the learning rate
    moments: dict[str, str]  # the fields of the state except count: our name, optax's name
    needs_params: bool = False


class Nested(NamedTuple):
    a: Any
    b: Any


def optimizer_params(dtype=jnp.float32) -> dict[str, Any]:
    """Return a pytree with all kinds of nodes and leaves of several shapes."""
    rng = np.random.default_rng(0)
    tree = {
        "w": rng.normal(size=(3, 4)),
        "list": [rng.normal()],
        "tuple": (Nested(rng.normal(size=(2, 1, 3)), None), ()),
        "none": None,
    }
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def only_matrices(params):
    """Return the usual mask: biases do not decay."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def first_level(params):
    """Return a mask that is a prefix of the parameters."""
    return {name: name in ("w", "dense") for name in params} if isinstance(params, dict) else True


def promoting(make):
    """Run optax's optimizer with standard dtype promotion, because it fails with the strict promotion of the tests."""

    def lenient(function):
        def call(*args, **kwargs):
            with jax.numpy_dtype_promotion("standard"):
                return function(*args, **kwargs)

        return call

    return lambda *args, **kwargs: optax.GradientTransformation(*map(lenient, make(*args, **kwargs)))


def _moving_average(learning_rate, momentum):
    return optax.chain(optax.ema(momentum, debias=False), optax.scale_by_learning_rate(learning_rate))


_bind = functools.partial
_adam = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "eps_root": 0.0}
_decay = {**_adam, "weight_decay": 0.1}
_rms = {"decay": 0.9, "eps": 1e-8, "initial_scale": 0.0}
_ada = {"initial_accumulator_value": 0.1, "eps": 1e-7}
_lion = {"b1": 0.9, "b2": 0.99, "weight_decay": 1e-3}
_trace, _nu, _mu, _both = {"trace": "trace"}, {"nu": "nu"}, {"mu": "mu"}, {"mu": "mu", "nu": "nu"}
_RMSPROP = [
    ({"bias_correction": True}, {}, {}),
    ({}, {"momentum": 0.9}, _trace),
    ({"nesterov": True, "bias_correction": True}, {"momentum": 0.5}, _trace),
]

OPTIMIZERS = [
    OptimizerCase("sgd", optim.sgd, optax.sgd, {}, {}),
    OptimizerCase("momentum", optim.momentum, optax.sgd, {"momentum": 0.9}, _trace),
    OptimizerCase("momentum 0", optim.momentum, optax.sgd, {"momentum": 0.0}, _trace),
    OptimizerCase("momentum, moving average", _bind(optim.momentum, moving_average=True), _moving_average,
                  {"momentum": 0.9}, {"trace": "ema"}),
    OptimizerCase("nesterov", optim.nesterov, _bind(optax.sgd, nesterov=True), {"momentum": 0.9}, _trace),
    OptimizerCase("rmsprop", optim.rmsprop, optax.rmsprop, _rms, _nu),
    OptimizerCase("rmsprop, eps outside", _bind(optim.rmsprop, eps_in_sqrt=False),
                  _bind(optax.rmsprop, eps_in_sqrt=False), _rms, _nu),
    OptimizerCase("rmsprop, initial scale", optim.rmsprop, optax.rmsprop, {**_rms, "initial_scale": 1.0}, _nu),
    *[OptimizerCase(f"rmsprop, {', '.join(options)}", _bind(optim.rmsprop, **options), _bind(optax.rmsprop, **options),
                    {**_rms, **hyper}, {**_nu, **moments}) for options, hyper, moments in _RMSPROP],
    OptimizerCase("adagrad", optim.adagrad, optax.adagrad, _ada, {"sum_of_squares": "sum_of_squares"}),
    OptimizerCase("adagrad from 0", optim.adagrad, optax.adagrad, {**_ada, "initial_accumulator_value": 0.0},
                  {"sum_of_squares": "sum_of_squares"}),
    OptimizerCase("adam", optim.adam, optax.adam, _adam, _both),
    OptimizerCase("adam, eps_root", optim.adam, optax.adam, {**_adam, "eps_root": 1e-6}, _both),
    OptimizerCase("adam, large eps", optim.adam, optax.adam, {**_adam, "b1": 0.5, "b2": 0.9, "eps": 1.0}, _both),
    OptimizerCase("adamw", optim.adamw, optax.adamw, _decay, _both, needs_params=True),
    OptimizerCase("adamw, function as mask", _bind(optim.adamw, mask=only_matrices),
                  _bind(optax.adamw, mask=only_matrices), _decay, _both, needs_params=True),
    OptimizerCase("adamw, prefix as mask", _bind(optim.adamw, mask=first_level),
                  _bind(optax.adamw, mask=first_level), _decay, _both, needs_params=True),
    OptimizerCase("nadam", optim.nadam, optax.nadam, _adam, _both),
    OptimizerCase("nadam, eps_root", optim.nadam, optax.nadam, {**_adam, "eps_root": 1e-6}, _both),
    OptimizerCase("lion", optim.lion, optax.lion, _lion, _mu, needs_params=True),
    OptimizerCase("lion, mask", _bind(optim.lion, mask=only_matrices), _bind(optax.lion, mask=only_matrices), _lion,
                  _mu, needs_params=True),
]  # fmt: skip
OPTIMIZERS = [case._replace(optax=promoting(case.optax)) for case in OPTIMIZERS]


# Shared helpers ------------------------------------------------------------------------------------------------


def random_like(tree, salt):
    leaves, treedef = jax.tree.flatten(tree)
    rng = np.random.default_rng(salt)
    return jax.tree.unflatten(treedef, [jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype) for leaf in leaves])


@functools.partial(jax.jit, static_argnums=0)
def directional_derivatives(f, at, size=1e-5):
    """Return the derivatives in three random directions, by `jax.grad` and by finite differences."""
    gradient = jax.grad(f)(at)
    directions = [random_like(at, salt) for salt in range(3)]
    exact = [sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction))) for direction in directions]
    steps = [jax.tree.map(lambda a, d: a + sign * size * d, at, d) for d in directions for sign in (1, -1)]  # noqa: B023
    values = jax.lax.map(f, jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps))
    return jnp.stack(exact), (values[::2] - values[1::2]) / (2 * size)


def equations(jaxpr):
    """Yield all equations of a program and of the programs nested in it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def over(table: list[Any]):
    """Run a test once per row of the table, as `@over(LAYERS)`."""
    return pytest.mark.parametrize("case", table, ids=lambda case: case.name.replace(" ", "_").replace(",", ""))
