"""Build a transformer encoder, and a language model from it."""

from collections.abc import Callable, Sequence

import jax
from jax import Array
from jax.nn.initializers import normal

from nnjax import checks
from nnjax.nn.as_layer import as_layer, identity
from nnjax.nn.attention import AttentionInput, multi_head_attention
from nnjax.nn.branch import branch
from nnjax.nn.dense import dense
from nnjax.nn.dropout import dropout as dropout_layer
from nnjax.nn.embedding import embedding
from nnjax.nn.initializers import Activation, initializer_for
from nnjax.nn.named import named_sequence
from nnjax.nn.norm import layer_norm
from nnjax.nn.positions import rotary
from nnjax.nn.repeat import repeat
from nnjax.nn.serial import serial
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State


def transformer(
    features: int,
    depth: int,
    heads: int,
    *,
    hidden: int | None = None,
    activation: Activation = jax.nn.gelu,
    dropout: float | Array = 0.0,
    causal: bool = False,
    rotate: Callable[[Array], Array] | None = None,
) -> Layer:
    """Build a transformer encoder with normalisation before each sublayer (pre-norm).

        h ← h + dropout(attention(norm(h)));   h ← h + dropout(w₂ activation(w₁ norm(h) + b₁) + b₂);   y = norm(h)

    The blocks form a `repeat`, so the program size does not depend on the depth.

    Args:
      features: Number of features of a position.
      depth: Number of blocks.
      heads: Number of attention heads.
      hidden: Width of the hidden dense layer; None means 4 · features.
      activation: Activation after the hidden dense layer.
      dropout: Dropout rate after each sublayer, in [0, 1).
      causal: True if each position attends only to itself and earlier positions.
      rotate: Function applied to queries and keys, such as `nn.rotary()`. Without any position encoding, attention
        ignores the order of the positions, unless `causal` is True.

    Shapes: x (batch, length, features), or `AttentionInput(x, mask=…)` -> y (batch, length, features).

    Raises:
      ValueError: if a size is < 1, if heads does not divide features, or if the dropout rate is outside [0, 1); in
        `init` and `apply`, if x has the wrong shape.
      TypeError: if a size is not an integer, or x is not floating-point.

    >>> net = nn.transformer(16, 2, 4)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 5, 16)))
    >>> net.apply(params, state, jnp.ones((4, 5, 16)), train=False)[0].shape
    (4, 5, 16)

    Source: Vaswani et al. 2017, arXiv:1706.03762; Xiong et al. 2020, arXiv:2002.04745 (pre-norm).
    """
    features = checks.positive_int("transformer", "features", features)
    hidden = 4 * features if hidden is None else checks.positive_int("transformer", "hidden", hidden)
    drop: list[LayerLike] = [] if isinstance(dropout, (int, float)) and dropout == 0 else [dropout_layer(dropout)]
    attention = multi_head_attention(heads, causal=causal, rotate=rotate)
    dense_part: list[LayerLike] = [
        dense(hidden, w_init=initializer_for(activation)),
        activation,
        dense(features, w_init=initializer_for(None)),
    ]
    block = serial(
        _add(features, _on_x(layer_norm()), _returning_input(attention), *map(_on_x, drop)),
        _add(features, *map(_on_x, [layer_norm(), *dense_part, *drop])),
    )._replace(name="block")
    return serial(repeat(depth, block), _on_x(layer_norm()), _x)._replace(name="transformer")


def language_model(
    vocabulary: int,
    features: int,
    depth: int,
    heads: int,
    *,
    hidden: int | None = None,
    dropout: float | Array = 0.0,
    tied: bool = True,
) -> Layer:
    """Build a causal transformer that predicts the next token, with rotary positions.

        h = transformer(embedding[x]);   y = h embeddingᵀ if tied, else h w + b

    Args:
      vocabulary: Number of different tokens, which are 0 … vocabulary - 1.
      features: Number of features of a position.
      depth: Number of blocks.
      heads: Number of attention heads.
      hidden: Width of the hidden dense layer in each block; None means 4 · features.
      dropout: Dropout rate after each sublayer, in [0, 1).
      tied: True if the last layer uses the embedding as its weights.

    Shapes: x (batch, length), integers -> logits (batch, length, vocabulary); the logits at position t predict the
    token at t + 1. A token outside 0 … vocabulary - 1 gives NaN. Parameters `{"embedding", "body"}`, and `"head"` if
    not tied.

    Raises:
      ValueError: if a size is < 1, if heads does not divide features, or if the dropout rate is outside [0, 1); in
        `init`, if x does not have two axes.
      TypeError: if x does not hold integers.

    >>> net = nn.language_model(50, 16, 2, 4)
    >>> params, state = net.init(jax.random.key(0), jnp.zeros((1, 8), jnp.int32))
    >>> net.apply(params, state, jnp.zeros((4, 8), jnp.int32), train=False)[0].shape
    (4, 8, 50)

    Source: Radford et al. 2018; Press and Wolf 2017, arXiv:1608.05859 (tied weights).
    """
    # Tied weights are a single parameter that `apply` uses twice
    look_up = embedding(vocabulary, features, w_init=normal(features**-0.5))
    body = transformer(features, depth, heads, hidden=hidden, dropout=dropout, causal=True, rotate=rotary())
    head = dense(vocabulary, w_init=initializer_for(None))
    layers = {"embedding": look_up, "body": body} | ({} if tied else {"head": head})
    net = named_sequence("language_model", layers)

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        checks.numbers("language_model", x, "(batch, length)")
        if len(x.shape) != 2:
            raise ValueError(
                f"language_model: x must be (batch, length) tokens, got {tuple(x.shape)}; use x[None] for one sequence"
            )
        return net.init(key, x)

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        y, state = net.apply(params, state, x, train=train, key=key)
        return (y @ params["embedding"]["w"].T if tied else y), state

    return Layer("language_model", init, apply)


def _x(inputs: Array | AttentionInput) -> Array:
    return inputs.x if isinstance(inputs, AttentionInput) else inputs


def _add(features: int, *layers: LayerLike) -> Layer:
    """Return a skip connection around layers that preserves the mask and context."""

    def merge(ys: Sequence[Array | AttentionInput]) -> Array | AttentionInput:
        x, y = ys
        if _x(x).shape != _x(y).shape:
            raise ValueError(f"transformer: x must have {features} features, got {tuple(_x(x).shape)}")
        total = _x(x) + _x(y)
        return x._replace(x=total) if isinstance(x, AttentionInput) else total

    return branch(identity(), serial(*layers), merge=merge)._replace(name="residual")


def _on_x(layer: LayerLike) -> Layer:
    """Apply a layer to the `x` of an `AttentionInput` and keep its other fields; for an array, just apply the layer."""
    return _returning_input(layer, _x)


def _returning_input(layer: LayerLike, select: Callable[[PyTree], PyTree] = lambda x: x) -> Layer:
    """Apply a layer to `select(inputs)` and, in an `AttentionInput`, replace `x` with the output."""
    inner = as_layer(layer)

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        return inner.init(key, select(x))

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        y, state = inner.apply(params, state, select(x), train=train, key=key)
        return (x._replace(x=y) if isinstance(x, AttentionInput) else y), state

    return Layer(inner.name, init, apply)
