"""Networks made only of the layers and combinators beside this file."""

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn.initializers import zeros

from nnjax import checks
from nnjax.nn.as_layer import as_layer
from nnjax.nn.branch import residual
from nnjax.nn.conv import conv
from nnjax.nn.dense import dense
from nnjax.nn.dropout import dropout as dropout_layer
from nnjax.nn.initializers import glorot_normal, he_normal, lecun_normal
from nnjax.nn.norm import batch_norm, layer_norm
from nnjax.nn.pool import max_pool
from nnjax.nn.repeat import repeat
from nnjax.nn.serial import serial
from nnjax.nn.shape import flatten, reshape
from nnjax.nn.widths import Width, check_width, mask
from nnjax.types import Initializer, Key, Layer, LayerLike, Params, State

Activation = Callable[[Array], Array]
Norm = Literal["batch", "layer"] | None


def initializer_for(
    activation: Activation | None, inputs: Width | None = None, outputs: Width | None = None
) -> Initializer:
    """The initialiser of weights that keeps the size of activations, by what comes after them.

    tanh, sigmoid, softmax: Glorot's, variance 2 / (inputs + outputs). None (a last layer) and selu: LeCun's, 1 /
    inputs. Everything else, ReLU and its kin: He's, 2 / inputs.

    Args:
      activation: the function after the layer.
      inputs: true number of inputs of padded weights, None for all; `outputs` alike.
      outputs: true number of outputs of padded weights.

    >>> w = nn.initializer_for(jax.nn.relu)(jax.random.key(0), (1000, 500))
    >>> f"{1000 * w.var():.1f}"
    '2.0'

    Source: LeCun et al. 1998; Glorot and Bengio 2010; He et al. 2015, arXiv:1502.01852.
    """
    if activation is None or activation is jax.nn.selu:
        return lecun_normal(inputs, outputs)
    if activation in (jnp.tanh, jax.nn.tanh, jax.nn.sigmoid, jax.nn.soft_sign, jax.nn.softmax):
        return glorot_normal(inputs, outputs)
    return he_normal(inputs, outputs)


def perceptron(activation: Activation = jax.nn.relu) -> Layer:
    """One perceptron.

        y = activation(b + w·x)

    Args:
      activation: ReLU, or `nn.step` for Rosenblatt's.

    Shapes: x (batch, inputs) -> y (batch,).

    >>> params, state = nn.perceptron().init(jax.random.key(0), jnp.ones((1, 2)))
    >>> nn.perceptron().apply(params, state, jnp.ones((32, 2)), train=False)[0].shape
    (32,)
    """
    return serial(dense(1, w_init=initializer_for(activation)), activation, reshape(()))._replace(name="perceptron")


def mlp(
    hidden: Sequence[int],
    outputs: int,
    *,
    activation: Activation = jax.nn.relu,
    norm: Norm = None,
    dropout: float | Array = 0.0,
    widths: Sequence[Width | None] | Array | None = None,
    features_first: bool = False,
) -> Layer:
    """A multi-layer perceptron.

        h ← dropout(activation(norm(h w + b))) for each hidden layer;   y = h w + b

    Args:
      hidden: widths of the hidden layers; none for a linear model.
      outputs: width of the output, which has no activation.
      activation: after each hidden layer; it also chooses the initialisers (`initializer_for`).
      norm: "batch", "layer", or None, before the activation; with "batch" the dense layers need no bias and have none.
      dropout: rate, after each activation.
      widths: true widths of the hidden layers, 1 … `hidden` each, the rest being padding; None for all of it. They may
        be traced integers, so that `jax.vmap` can sweep them. Outputs, gradients and the spread of the first parameters
        are those of `mlp(widths, …)`, but not the draws; weights in the padding start at zero, and the gradient of the
        padding is zero. The activation must act on each number by itself.
      features_first: for narrow networks and many rows on a CPU; see `dense`.

    Shapes: x (batch, ...) is flattened -> y (batch, outputs).

    Raises:
      ValueError: for widths < 1 or beyond `hidden`, an unknown norm, or a dropout rate outside [0, 1).

    >>> net = nn.mlp([128, 128], 10, norm="batch", dropout=0.1)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 8, 8)))
    >>> net.apply(params, state, jnp.ones((32, 8, 8)), train=False)[0].shape
    (32, 10)

    Networks of 4, 8, … 128 hidden units, side by side in one program:

    >>> def logits(width):
    ...     net = nn.mlp([128], 10, widths=[width])
    ...     params, state = net.init(jax.random.key(0), jnp.ones((1, 64)))
    ...     return net.apply(params, state, jnp.ones((32, 64)), train=False)[0]
    >>> jax.vmap(logits)(2 ** jnp.arange(2, 8)).shape
    (6, 32, 10)
    """
    true = _true_widths("mlp", hidden, widths, activation)
    layers: list[LayerLike] = [flatten()]
    for i, padded in enumerate(hidden):
        w_init = initializer_for(activation, true[i], true[i + 1])
        layers += [
            dense(padded, bias=norm != "batch", w_init=w_init, features_first=features_first),
            *_norm("mlp", norm, true[i + 1]),
            _activated(activation, true[i + 1], dropout),
        ]
    last = dense(outputs, w_init=initializer_for(None, true[-1]), features_first=features_first)
    return serial(*layers, last)._replace(name="mlp")


def residual_mlp(
    width: int,
    depth: int,
    outputs: int,
    *,
    activation: Activation = jax.nn.relu,
    norm: Norm = "layer",
    dropout: float | Array = 0.0,
) -> Layer:
    """A multi-layer perceptron of residual blocks, as deep as one likes.

        h ← h + w₂ dropout(activation(w₁ norm(h) + b₁)) + b₂ for each block;   y = norm(h) w + b

    The last layer of each block starts at zero, so that the network starts as a shallow one whatever its depth. The
    blocks are a `repeat`: the program does not grow with depth.

    Args:
      width: of the hidden layers.
      depth: number of blocks.
      outputs: width of the output, which has no activation.
      activation: inside the blocks; it also chooses the initialisers (`initializer_for`).
      norm: "batch", "layer", or None.
      dropout: rate, after each activation.

    Shapes: x (batch, ...) is flattened -> y (batch, outputs).

    Raises:
      ValueError: for widths or depths < 1, an unknown norm, or a dropout rate outside [0, 1).

    >>> net = nn.residual_mlp(64, 1000, 10)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 64)))
    >>> net.apply(params, state, jnp.ones((32, 64)), train=False)[0].shape
    (32, 10)

    Source: He et al. 2016 (identity mappings), arXiv:1603.05027; Zhang et al. 2019 (zero start), arXiv:1901.09321.
    """
    block = residual(
        *_norm("residual_mlp", norm),
        dense(width, w_init=initializer_for(activation)),
        _activated(activation, None, dropout),
        dense(width, w_init=zeros),
    )
    return serial(
        flatten(),
        dense(width, w_init=initializer_for(None)),
        repeat(depth, block),
        *_norm("residual_mlp", norm),
        dense(outputs, w_init=initializer_for(None)),
    )._replace(name="residual_mlp")


def lenet(outputs: int, *, activation: Activation = jax.nn.relu) -> Layer:
    """A small convolutional network after LeNet-5: two convolutions with pooling, three dense layers.

    Args:
      outputs: width of the output, which has no activation.
      activation: after each hidden layer (LeNet's own was a scaled tanh).

    Shapes: x (batch, height, width, channels), 28 × 28 in the original -> y (batch, outputs).

    >>> params, state = nn.lenet(10).init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> nn.lenet(10).apply(params, state, jnp.ones((2, 28, 28, 1)), train=False)[0].shape
    (2, 10)

    Source: LeCun et al. 1998, with max-pooling and a linear last layer.
    """
    w_init = initializer_for(activation)
    return serial(
        conv(6, (5, 5), w_init=w_init),
        activation,
        max_pool((2, 2)),
        conv(16, (5, 5), padding="VALID", w_init=w_init),
        activation,
        max_pool((2, 2)),
        flatten(),
        dense(120, w_init=w_init),
        activation,
        dense(84, w_init=w_init),
        activation,
        dense(outputs, w_init=initializer_for(None)),
    )._replace(name="lenet")


def _norm(where: str, norm: Norm, width: Width | None = None) -> list[Layer]:
    if norm is None:
        return []
    checks.one_of(where, "norm", norm, ("batch", "layer"))
    return [batch_norm() if norm == "batch" else layer_norm(width=width)]


def _activated(activation: Activation, width: Width | None, rate: float | Array) -> LayerLike:
    """Activation, mask and dropout as one layer, so that a network has one form whatever its widths and its rate."""
    parts: list[LayerLike] = [activation]
    parts += [] if width is None else [mask(width)]
    parts += [] if isinstance(rate, (int, float)) and rate == 0 else [dropout_layer(rate)]
    if len(parts) == 1:
        return activation
    layers, nothing = serial(*parts), ((),) * len(parts)

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        return (), ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        return layers.apply(nothing, nothing, x, train=train, key=key)[0], state

    return Layer(", ".join(as_layer(part).name for part in parts), init, apply)


def _true_widths(
    where: str, hidden: Sequence[int], widths: Sequence[Width | None] | Array | None, activation: Activation
) -> list[Width | None]:
    """The true width of the input and of each hidden layer, None where nothing is padded."""
    if widths is None:
        return [None] * (len(hidden) + 1)
    if isinstance(widths, int) or getattr(widths, "shape", (0,)) == ():
        raise TypeError(f"{where}: widths must be a sequence, one width for each hidden layer, got {widths}")
    if len(widths) != len(hidden):
        raise ValueError(
            f"{where}: widths must be one for each hidden layer, got {len(widths)} widths for {len(hidden)} layers"
        )
    try:
        jax.eval_shape(activation, jax.ShapeDtypeStruct((), jnp.result_type(float)))
    except Exception as error:
        raise ValueError(
            f"{where}: with widths the activation must act on each number by itself, else it sees the padding; "
            f"{getattr(activation, '__name__', activation)} does not take a single number"
        ) from error
    checked = (
        None if width is None else check_width(where, f"widths[{i}]", width, padded)
        for i, (width, padded) in enumerate(zip(widths, hidden, strict=True))
    )
    return [None, *checked]
