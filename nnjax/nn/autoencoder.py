"""Build autoencoders, which reconstruct their input from a narrow code."""

import math
from collections.abc import Sequence

import jax
from jax import Array

from nnjax import checks
from nnjax.nn.initializers import Activation
from nnjax.nn.models import mlp
from nnjax.nn.named import named
from nnjax.nn.serial import serial
from nnjax.nn.shape import reshape
from nnjax.types import Key, Layer, Params, State


def autoencoder(hidden: Sequence[int], code: int, *, activation: Activation = jax.nn.relu) -> Layer:
    """Build an autoencoder from two multi-layer perceptrons.

        c = encoder(x);   y = decoder(c)

    Args:
      hidden: Widths of the encoder's hidden layers; the decoder uses them in reverse order.
      code: Number of features of the code.
      activation: Function after each hidden layer.

    Shapes: x (batch, ...) -> y, the same shape. Parameters and state `{"encoder", "decoder"}`. To use the encoder
    alone, apply `nn.mlp(hidden, code)`, with the same activation, to the entries "encoder".

    Raises:
      ValueError: if a width is < 1.
      TypeError: if a width is not an integer, or x is not floating-point.

    >>> net = nn.autoencoder([32], 2)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 8, 8)))
    >>> net.apply(params, state, jnp.ones((4, 8, 8)), train=False)[0].shape
    (4, 8, 8)

    Source: Hinton and Salakhutdinov 2006.
    """
    encoder = mlp(hidden, checks.positive_int("autoencoder", "code", code), activation=activation)

    def network(x: Array) -> Layer:
        checks.batched("autoencoder", x, "(batch, ...)")
        size = math.prod(x.shape[1:])
        decoder = serial(mlp(hidden[::-1], size, activation=activation), reshape(x.shape[1:]))
        return named(encoder=encoder, decoder=decoder)

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        return network(x).init(key, x)

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        return network(x).apply(params, state, x, train=train, key=key)

    return Layer("autoencoder", init, apply)
