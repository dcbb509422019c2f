"""Normalise over the batch or over the features."""

import jax.numpy as jnp
from jax import Array, lax

from nnjax import checks
from nnjax.nn._features import check_scale, init_scale, per_feature, wide_dtype
from nnjax.nn.widths import Width, check_width, keep_first, moments
from nnjax.types import Key, Layer, Params, State


def batch_norm(*, decay: float | Array = 0.9, eps: float | Array = 1e-5) -> Layer:
    """Normalise each feature over the batch, then scale and shift it by trained parameters (BatchNorm).

        training:    y = scale · (x - mean) / √(variance + eps) + bias,  mean and variance over all axes but the last
                     running ← decay · running + (1 - decay) · batch
        prediction:  the same formula with the running mean and variance

    Args:
      decay: Weight of the old running statistics in each update. Torch's "momentum" is 1 - decay, Flax's is decay.
      eps: A number > 0, added to the variance inside the root.

    Shapes: x (batch, ..., features) -> y, the same shape. Parameters `{"scale", "bias"}` and state `{"mean", "var"}`
    have shape (features,). Statistics are computed in two passes and stored in float32 or a wider dtype. As in the
    paper and torch, the batch is normalised by its biased variance, but the running variance is unbiased; in Flax and
    Keras it is biased. Before training, the running mean is 0 and the running variance is 1.

    Raises:
      ValueError: if decay is outside [0, 1] or eps ≤ 0; in `apply`, if x has the wrong number of features or, with
        train=True, only one value per feature.
      TypeError: if x is not floating-point.

    >>> layer = nn.batch_norm()
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((32, 4)))
    >>> y, state = layer.apply(params, state, jnp.ones((32, 4)), train=True)
    >>> f"{state['mean'][0]:.3f}"
    '0.100'

    Source: Ioffe and Szegedy 2015, arXiv:1502.03167.
    """
    decay = checks.in_range("batch_norm", "decay", decay, "[0, 1]")
    eps = checks.in_range("batch_norm", "eps", eps, "(0, inf)")
    name = "batch_norm"

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        checks.key(name, key, x)
        params = init_scale(name, x)
        dtype = wide_dtype(x.dtype)
        return params, {"mean": jnp.zeros(x.shape[-1:], dtype), "var": jnp.ones(x.shape[-1:], dtype)}

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        check_scale(name, x, params)
        size = x.shape[-1:]
        checks.leaves(name, "state", state, {"mean": size, "var": size})
        if not train:
            return _normalise(x, state["mean"], state["var"], eps, params), state
        count = x.size // x.shape[-1]
        if count < 2:
            raise ValueError(
                f"{name}: train=True needs at least 2 values of each feature, got x {tuple(x.shape)}; "
                "use a larger batch, or train=False"
            )
        axes = tuple(range(x.ndim - 1))
        wide = x.astype(wide_dtype(x.dtype))
        mean = wide.mean(axes)
        variance = jnp.square(wide - per_feature(mean, x)).mean(axes)
        batch = {"mean": mean, "var": variance * (count / (count - 1))}
        keep = jnp.asarray(decay, state["mean"].dtype)
        state = {k: keep * state[k] + (1 - keep) * batch[k].astype(keep.dtype) for k in batch}
        return _normalise(x, mean, variance, eps, params), state

    return Layer(name, init, apply)


def layer_norm(*, eps: float | Array = 1e-5, width: Width | None = None) -> Layer:
    """Normalise each example over its features, then scale and shift it by trained parameters (LayerNorm).

        y = scale · (x - mean) / √(variance + eps) + bias,  mean and variance over the last axis

    Args:
      eps: A number > 0, added to the variance inside the root. The default is torch's; Flax and Keras have other
        defaults.
      width: True number of features if x is padded (see `first_features`), or None. Mean and variance are taken over
        the first `width` features, and y is zero beyond them. The width may be a traced integer.

    Shapes: x (batch, ..., features) -> y, the same shape. Parameters `{"scale", "bias"}` have shape (features,).
    Statistics are computed in two passes, in float32 or a wider dtype.

    Raises:
      ValueError: if eps ≤ 0, if the width is outside 1 … features, or if x has the wrong number of features.
      TypeError: if the width is not an integer, or x is not floating-point.

    >>> layer = nn.layer_norm()
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((32, 4)))
    >>> y, _ = layer.apply(params, state, jnp.ones((32, 1)) * jnp.arange(4.0)[None], train=True)
    >>> float(abs(y.mean())) < 1e-6
    True

    Source: Ba, Kiros and Hinton 2016, arXiv:1607.06450.
    """
    eps = checks.in_range("layer_norm", "eps", eps, "(0, inf)")
    width = None if width is None else check_width("layer_norm", "width", width)
    name = "layer_norm"

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        checks.key(name, key, x)
        return init_scale(name, x), ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        check_scale(name, x, params)
        if width is not None:
            check_width(name, "width", width, x.shape[-1])
        mean, variance = moments(x.astype(wide_dtype(x.dtype)), width)
        return keep_first(_normalise(x, mean, variance, eps, params), width), state

    return Layer(name, init, apply)


def rms_norm(*, eps: float | Array = 1e-6) -> Layer:
    """Divide each example by the root mean square of its features, then scale it (RMSNorm).

        y = scale · x / √(mean(x²) + eps),  mean over the last axis

    Args:
      eps: A number > 0, added to the mean inside the root. The default is Flax's; torch uses the machine epsilon of
        the dtype.

    Shapes: x (batch, ..., features) -> y, the same shape. Parameters `{"scale": (features,)}`. The mean is computed
    in float32 or a wider dtype.

    Raises:
      ValueError: if eps ≤ 0, or if x has the wrong number of features.
      TypeError: if x is not floating-point.

    >>> layer = nn.rms_norm()
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 2)))
    >>> y, _ = layer.apply(params, state, jnp.array([[3.0, 4.0]]), train=False)
    >>> [f"{v:.3f}" for v in y[0]]
    ['0.849', '1.131']

    Source: Zhang and Sennrich 2019, arXiv:1910.07467.
    """
    eps = checks.in_range("rms_norm", "eps", eps, "(0, inf)")
    name = "rms_norm"

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        checks.key(name, key, x)
        return init_scale(name, x, bias=False), ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        check_scale(name, x, params, bias=False)
        dtype = wide_dtype(x.dtype)
        wide = x.astype(dtype)
        inverse = lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + jnp.asarray(eps, dtype))
        return (wide * inverse * per_feature(params["scale"].astype(dtype), x)).astype(x.dtype), state

    return Layer(name, init, apply)


def _normalise(x: Array, mean: Array, variance: Array, eps: float | Array, params: Params) -> Array:
    """Return scale · (x - mean) / √(variance + eps) + bias, computed in the mean's dtype and cast to x's dtype."""
    dtype = mean.dtype
    if mean.ndim != x.ndim:
        mean, variance = per_feature(mean, x), per_feature(variance, x)
    inverse = lax.rsqrt(variance + jnp.asarray(eps, dtype))
    y = (x.astype(dtype) - mean) * inverse * per_feature(params["scale"].astype(dtype), x)
    return (y + per_feature(params["bias"].astype(dtype), x)).astype(x.dtype)
