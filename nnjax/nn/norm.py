"""Normalisation over the batch and over the features."""

import jax.numpy as jnp
from jax import Array, lax

from nnjax import checks
from nnjax.nn.shape import param_dtype, per_feature
from nnjax.nn.widths import Width, check_width, inside
from nnjax.types import Key, Layer, Params, State


def batch_norm(*, decay: float | Array = 0.9, eps: float | Array = 1e-5) -> Layer:
    """BatchNorm: each feature is standardised over the batch, then scaled and shifted by trained parameters.

        train:  y = scale · (x - mean) / √(variance + eps) + bias,  mean and variance over all axes but the last
                running ← decay · running + (1 - decay) · batch
        else:   the same with the running mean and variance

    Args:
      decay: share of the old running statistics that is kept ("momentum" means opposite things in torch and Flax).
      eps: added to the variance inside the root.

    Shapes: x (batch, ..., features) -> y, the same. Parameters `{"scale", "bias"}`, state `{"mean", "var"}`,
    (features,) each. Statistics are computed in two passes and kept in float32 at least. The batch is normalised by
    its biased variance and the running variance is unbiased, as in the paper (and torch; Flax and Keras keep the
    biased one).

    Raises:
      ValueError: for decay outside [0, 1] or eps ≤ 0; in `apply(train=True)` with a single value for each feature,
        whose variance says nothing (before any training `train=False` works: mean 0, variance 1).

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
        params = affine(name, x)
        dtype = statistics_dtype(x)
        return params, {"mean": jnp.zeros(x.shape[-1:], dtype), "var": jnp.ones(x.shape[-1:], dtype)}

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        checks.batched(name, x)
        checks.features(name, x, params["scale"].shape[0])
        if not train:
            return normalise(x, state["mean"], state["var"], eps, params), state
        count = x.size // x.shape[-1]
        if count < 2:
            raise ValueError(
                f"{name}: train=True needs at least 2 values of each feature, got x {tuple(x.shape)}; "
                "take a larger batch, or train=False"
            )
        axes = tuple(range(x.ndim - 1))
        wide = x.astype(statistics_dtype(x))
        mean = wide.mean(axes)
        variance = jnp.square(wide - per_feature(mean, x)).mean(axes)
        batch = {"mean": mean, "var": variance * (count / (count - 1))}
        keep = jnp.asarray(decay, state["mean"].dtype)
        state = {k: keep * state[k] + (1 - keep) * batch[k].astype(keep.dtype) for k in batch}
        return normalise(x, mean, variance, eps, params), state

    return Layer(name, init, apply)


def layer_norm(*, eps: float | Array = 1e-5, width: Width | None = None) -> Layer:
    """LayerNorm: each example is standardised over its features, then scaled and shifted by trained parameters.

        y = scale · (x - mean) / √(variance + eps) + bias,  mean and variance over the last axis

    Args:
      eps: added to the variance inside the root (torch's default; Flax's and Keras' differ).
      width: how many features count, the rest being padding (`mask`): mean and variance are of the first `width`, and y
        is zero beyond; may be a traced integer. None for all.

    Shapes: x (batch, ..., features) -> y, the same. Parameters `{"scale", "bias"}`, (features,) each.
    Statistics are computed in two passes and in float32 at least.

    Raises:
      ValueError: for eps ≤ 0, a width outside 1 … features, or an input of another width than the parameters.

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
        return affine(name, x), ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        checks.batched(name, x)
        checks.features(name, x, params["scale"].shape[0])
        wide = x.astype(statistics_dtype(x))
        if width is None:
            mean = wide.mean(-1, keepdims=True)
            variance = jnp.square(wide - mean).mean(-1, keepdims=True)
            return normalise(x, mean, variance, eps, params), state
        check_width(name, "width", width, x.shape[-1])
        true, count = per_feature(inside(width, x.shape[-1]), x), jnp.asarray(width, wide.dtype)
        wide = jnp.where(true, wide, jnp.zeros_like(wide))
        mean = wide.sum(-1, keepdims=True) / count
        squares = jnp.square(wide - mean)
        variance = jnp.where(true, squares, jnp.zeros_like(squares)).sum(-1, keepdims=True) / count
        return jnp.where(true, normalise(x, mean, variance, eps, params), jnp.zeros_like(x)), state

    return Layer(name, init, apply)


def statistics_dtype(x: Array) -> jnp.dtype:
    """The dtype of statistics: that of `x`, float32 at least."""
    return x.dtype if x.dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def affine(name: str, x: Array) -> Params:
    """The parameters of a norm, which at first change nothing."""
    checks.batched(name, x)
    return {"scale": jnp.ones(x.shape[-1:], param_dtype(x)), "bias": jnp.zeros(x.shape[-1:], param_dtype(x))}


def normalise(x: Array, mean: Array, variance: Array, eps: float | Array, params: Params) -> Array:
    """scale · (x - mean) / √(variance + eps) + bias, computed in the statistics' dtype, returned in that of `x`."""
    dtype = mean.dtype
    if mean.ndim != x.ndim:
        mean, variance = per_feature(mean, x), per_feature(variance, x)
    inverse = lax.rsqrt(variance + jnp.asarray(eps, dtype))
    y = (x.astype(dtype) - mean) * inverse * per_feature(params["scale"].astype(dtype), x)
    return (y + per_feature(params["bias"].astype(dtype), x)).astype(x.dtype)
