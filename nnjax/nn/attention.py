"""Build layers of multi-head attention, which compute weighted means over positions."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn.initializers import zeros

from nnjax import checks
from nnjax.nn._affine import affine, check_initialisers, check_parts, init_affine
from nnjax.nn._features import wide_dtype
from nnjax.nn.initializers import glorot_normal
from nnjax.types import Initializer, Key, Layer, Params, State


class AttentionInput(NamedTuple):
    """Input of `multi_head_attention` with a separate context, a mask, or both."""

    x: Array  # (batch, length, features): source of the queries
    context: Array | None = None  # (batch, context length, features): source of keys and values; None means x
    mask: Array | None = None  # booleans (batch, length, context length): True where x may attend to the context


def multi_head_attention(
    heads: int,
    *,
    causal: bool = False,
    rotate: Callable[[Array], Array] | None = None,
    bias: bool = True,
    w_init: Initializer = glorot_normal(),
    fused: bool = False,
) -> Layer:
    """For each position, compute weighted means over all positions, in several heads with separate weights.

        y = concat_h(softmax(q_h k_hᵀ / √size) v_h) w + b
        q_h, k_h, v_h = affine maps of x to size = features / heads

    Args:
      heads: Number of heads. It must divide the number of features.
      causal: True if each position attends only to itself and earlier positions.
      rotate: Function applied to queries and keys (batch, length, heads, size) before their product, such as
        `nn.rotary()`.
      bias: True if the four affine maps have a bias.
      w_init: Initialiser of the weights of these maps.
      fused: True to use cuDNN's fused kernel, which does not store the attention matrix. It requires an NVIDIA GPU
        and float16 or bfloat16.

    Shapes: x (batch, length, features), or an `AttentionInput` with a separate context or a mask -> y (batch, length,
    features). Parameters `{"query", "key", "value", "out"}`, each `{"w": (features, features), "b": (features,)}`.
    The softmax uses float32 or a wider dtype. A position that may not attend to anything gets the mean of all values.

    Raises:
      ValueError: if heads < 1, if heads does not divide the features, or if the mask or context has the wrong shape.
      TypeError: if the mask does not hold booleans.

    >>> layer = nn.multi_head_attention(2, causal=True)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 5, 8)))
    >>> layer.apply(params, state, jnp.ones((4, 5, 8)), train=False)[0].shape
    (4, 5, 8)

    Source: Vaswani et al. 2017, arXiv:1706.03762.
    """
    heads = checks.positive_int("multi_head_attention", "heads", heads)
    name = f"multi_head_attention({heads})"
    causal, bias, fused = (
        checks.flag(name, key, value) for key, value in (("causal", causal), ("bias", bias), ("fused", fused))
    )
    check_initialisers(name, w_init)
    if rotate is not None:
        checks.function(name, "rotate", rotate, "nn.rotary()")
    parts = ("query", "key", "value", "out")

    def init(key: Key, x: Array | AttentionInput, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        inputs = _inputs(name, x)
        features = inputs.x.shape[-1]
        if features % heads:
            raise ValueError(f"{name}: heads must divide the features, got {heads} heads for {features} features")
        shape, b_init = (features, features), zeros if bias else None
        return {
            part: init_affine(jax.random.fold_in(key, i), inputs.x, shape, w_init, b_init)
            for i, part in enumerate(parts)
        }, ()

    def apply(
        params: Params, state: State, x: Array | AttentionInput, /, *, train: bool, key: Key | None = None
    ) -> tuple[Array, State]:
        inputs = _inputs(name, x)
        check_parts(name, params, parts, inputs.x.shape[-1], bias=bias)
        checks.features(name, inputs.x, params["query"]["w"].shape[0])
        context = inputs.x if inputs.context is None else inputs.context

        def split(part: str, x: Array) -> Array:
            y = affine(x, params[part]["w"], params[part].get("b"))
            return y.reshape(*x.shape[:-1], heads, -1)

        q, k, v = split("query", inputs.x), split("key", context), split("value", context)
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        mask = None if inputs.mask is None else inputs.mask[:, None]
        y = _attend(q, k, v, mask, causal=causal, fused=fused).reshape(inputs.x.shape)
        return affine(y, params["out"]["w"], params["out"].get("b")), state

    return Layer(name, init, apply)


def _inputs(name: str, x: Array | AttentionInput) -> AttentionInput:
    """Return the input as an `AttentionInput` after checking its shapes."""
    inputs = x if isinstance(x, AttentionInput) else AttentionInput(x)
    checks.sequences(name, inputs.x)
    batch, length, features = inputs.x.shape
    source = length
    if inputs.context is not None:
        checks.batched(name, inputs.context, "(batch, context length, features)", 3)
        if inputs.context.ndim != 3 or (inputs.context.shape[0], inputs.context.shape[2]) != (batch, features):
            raise ValueError(
                f"{name}: context must be ({batch}, context length, {features}), got {tuple(inputs.context.shape)}"
            )
        source = inputs.context.shape[1]
    if inputs.mask is not None:
        if inputs.mask.dtype != bool:
            raise TypeError(
                f"{name}: mask must hold booleans, True where attended, got {inputs.mask.dtype}; use mask.astype(bool)"
            )
        if inputs.mask.shape != (batch, length, source):
            raise ValueError(f"{name}: mask must be ({batch}, {length}, {source}), got {tuple(inputs.mask.shape)}")
    return inputs


def _attend(q: Array, k: Array, v: Array, mask: Array | None, *, causal: bool, fused: bool) -> Array:
    """Return softmax(q kᵀ / √size) v for q, k, v (batch, length, heads, size)."""
    if fused:
        return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal, implementation="cudnn")
    # jax.nn.dot_product_attention would compute the softmax of float64 in float32
    dtype = wide_dtype(q.dtype)
    logits = jnp.einsum("btnh,bsnh->bnts", q, k, preferred_element_type=dtype) * q.shape[-1] ** -0.5
    if causal:
        earlier = jnp.tril(jnp.ones(logits.shape[2:], bool))[None, None]
        mask = earlier if mask is None else mask & earlier
    if mask is not None:
        logits = jnp.where(mask, logits, float(np.finfo(dtype).min))
    return jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(logits, -1).astype(v.dtype), v)
