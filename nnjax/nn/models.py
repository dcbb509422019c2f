"""Build complete networks, using only the public layers and combinators."""

from collections.abc import Sequence
from typing import Literal

import jax
from jax import Array
from jax.nn.initializers import zeros

from nnjax import checks
from nnjax.nn.as_layer import as_layer
from nnjax.nn.branch import residual
from nnjax.nn.conv import conv
from nnjax.nn.dense import dense
from nnjax.nn.dropout import dropout as dropout_layer
from nnjax.nn.dropout import padded_dropout
from nnjax.nn.initializers import Activation, initializer_for
from nnjax.nn.norm import batch_norm, layer_norm
from nnjax.nn.pool import max_pool
from nnjax.nn.repeat import repeat
from nnjax.nn.serial import serial
from nnjax.nn.shape import flatten, reshape
from nnjax.nn.widths import Width, check_widths, first_features, keep_first
from nnjax.types import Key, Layer, LayerLike, Params, State

Norm = Literal["batch", "layer"] | None


def perceptron(activation: Activation = jax.nn.relu) -> Layer:
    """Build a single perceptron.

        y = activation(b + w·x)

    Args:
      activation: Activation function. `nn.heaviside` gives Rosenblatt's perceptron.

    Shapes: x (batch, inputs) -> y (batch,).

    Raises:
      TypeError: if the activation is not a function, or x is not floating-point.

    >>> params, state = nn.perceptron().init(jax.random.key(0), jnp.ones((1, 2)))
    >>> nn.perceptron().apply(params, state, jnp.ones((32, 2)), train=False)[0].shape
    (32,)
    """
    checks.function("perceptron", "activation", activation, "jax.nn.relu")
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
    """Build a multi-layer perceptron.

        h ← dropout(activation(norm(h w + b))) for each hidden layer;   y = h w + b

    Args:
      hidden: Widths of the hidden layers; empty for a linear model.
      outputs: Number of outputs. The last layer has no activation.
      activation: Function after each hidden layer. It also selects the initialisers (`initializer_for`).
      norm: Normalisation before each activation: "batch", "layer" or None. With "batch" the hidden layers have no bias.
      dropout: Dropout rate after each activation, in [0, 1).
      widths: True widths of the hidden layers, from 1 to the width in `hidden`; further features are padding. None
        means no padding. Widths may be traced integers, so that `jax.vmap` can sweep them. Initial weights, dropout
        masks, outputs and gradients equal those of `mlp(widths, …)` up to rounding. Weights in the padding start at
        zero and have zero gradient. The activation must be elementwise.
      features_first: True to use the transposed memory layout, which suits narrow networks on a CPU; see `dense`.

    Shapes: x (batch, ...), which is flattened -> y (batch, outputs).

    Raises:
      ValueError: if a width is < 1 or larger than in `hidden`, if the norm is unknown, or if the dropout rate is
        outside [0, 1).
      TypeError: if a width is not an integer, or the activation is not a function.

    >>> net = nn.mlp([128, 128], 10, norm="batch", dropout=0.1)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 8, 8)))
    >>> net.apply(params, state, jnp.ones((32, 8, 8)), train=False)[0].shape
    (32, 10)

    Run networks with 4, 8, … 128 hidden units in one program:

    >>> def logits(width):
    ...     net = nn.mlp([128], 10, widths=[width])
    ...     params, state = net.init(jax.random.key(0), jnp.ones((1, 64)))
    ...     return net.apply(params, state, jnp.ones((32, 64)), train=False)[0]
    >>> jax.vmap(logits)(2 ** jnp.arange(2, 8)).shape
    (6, 32, 10)
    """
    hidden = checks.items("mlp", "hidden", hidden, "[128, 128]")
    checks.function("mlp", "activation", activation, "jax.nn.relu")
    true = check_widths("mlp", hidden, widths, activation)
    layers: list[LayerLike] = [flatten()]
    for i, padded in enumerate(hidden):
        w_init = initializer_for(activation, true[i], true[i + 1])
        layers += [
            dense(padded, bias=norm != "batch", w_init=w_init, features_first=features_first),
            *_norms("mlp", norm, true[i + 1]),
            _activation(activation, true[i + 1], dropout),
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
    """Build a residual multi-layer perceptron, which is trainable at any depth.

        h ← h + w₂ dropout(activation(w₁ norm(h) + b₁)) + b₂ for each block;   y = norm(h) w + b

    The last layer of each block starts at zero, so the initial network is the same function at every depth. The blocks
    form a `repeat`, so the program size does not depend on the depth.

    Args:
      width: Width of the hidden layers.
      depth: Number of blocks.
      outputs: Number of outputs. The last layer has no activation.
      activation: Function inside the blocks. It also selects the initialisers (`initializer_for`).
      norm: Normalisation: "batch", "layer" or None.
      dropout: Dropout rate after each activation, in [0, 1).

    Shapes: x (batch, ...), which is flattened -> y (batch, outputs).

    Raises:
      ValueError: if a width or the depth is < 1, if the norm is unknown, or if the dropout rate is outside [0, 1).
      TypeError: if a width or the depth is not an integer, or the activation is not a function.

    >>> net = nn.residual_mlp(64, 1000, 10)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 64)))
    >>> net.apply(params, state, jnp.ones((32, 64)), train=False)[0].shape
    (32, 10)

    Source: He et al. 2016, arXiv:1603.05027 (identity mappings); Zhang et al. 2019, arXiv:1901.09321 (zero
    initialisation).
    """
    checks.function("residual_mlp", "activation", activation, "jax.nn.relu")
    block = residual(
        *_norms("residual_mlp", norm),
        dense(width, w_init=initializer_for(activation)),
        _activation(activation, None, dropout),
        dense(width, w_init=zeros),
    )
    return serial(
        flatten(),
        dense(width, w_init=initializer_for(None)),
        repeat(depth, block),
        *_norms("residual_mlp", norm),
        dense(outputs, w_init=initializer_for(None)),
    )._replace(name="residual_mlp")


def lenet(outputs: int, *, activation: Activation = jax.nn.relu) -> Layer:
    """Build a small convolutional network modelled on LeNet-5: two convolutions with pooling and three dense layers.

    Args:
      outputs: Number of outputs. The last layer has no activation.
      activation: Function after each hidden layer. The original used a scaled tanh.

    Shapes: x (batch, height, width, channels), such as 28 × 28 MNIST images -> y (batch, outputs).

    Raises:
      ValueError: if outputs < 1, or if the images are smaller than 12 × 12 pixels.
      TypeError: if outputs is not an integer, or the activation is not a function.

    >>> params, state = nn.lenet(10).init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> nn.lenet(10).apply(params, state, jnp.ones((2, 28, 28, 1)), train=False)[0].shape
    (2, 10)

    Source: LeCun et al. 1998, but with max-pooling and a linear last layer.
    """
    checks.function("lenet", "activation", activation, "jax.nn.relu")
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


def _norms(where: str, norm: Norm, width: Width | None = None) -> list[Layer]:
    if norm is None:
        return []
    checks.one_of(where, "norm", norm, ("batch", "layer"))
    return [batch_norm() if norm == "batch" else layer_norm(width=width)]


def _masked(activation: Activation, width: Width) -> Layer:
    """Combine activation and padding mask in one layer; dropout after it then has the same key as without padding."""
    name = f"{as_layer(activation).name}, {first_features(width).name}"
    return as_layer(lambda x: keep_first(activation(x), width))._replace(name=name)


def _activation(activation: Activation, width: Width | None, rate: float | Array) -> LayerLike:
    """Combine activation, padding mask and dropout in one layer; options then do not change the parameter structure."""
    stages: list[LayerLike] = [activation if width is None else _masked(activation, width)]
    if not (isinstance(rate, (int, float)) and rate == 0):
        stages.append(dropout_layer(rate) if width is None else padded_dropout(rate, width))
    if len(stages) == 1:
        return stages[0]
    layers, nothing = serial(*stages), ((),) * len(stages)

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        return (), ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        return layers.apply(nothing, nothing, x, train=train, key=key)[0], state

    return Layer(", ".join(as_layer(stage).name for stage in stages), init, apply)
