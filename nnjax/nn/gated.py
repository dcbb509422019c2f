"""Build layers that combine several affine maps: gated linear units and maxout."""

import jax
from jax import Array
from jax.nn.initializers import zeros

from nnjax import checks
from nnjax.nn._affine import affine, affine_shapes, check_initialisers, check_parts, init_affine
from nnjax.nn.initializers import Activation, he_normal, lecun_normal
from nnjax.types import Initializer, Key, Layer, Params, State


def gated_dense(
    features: int,
    *,
    activation: Activation = jax.nn.sigmoid,
    bias: bool = True,
    w_init: Initializer = lecun_normal(),
) -> Layer:
    """Multiply one affine map of the features by the activation of another (gated linear unit).

        y = activation(x w_gate + b_gate) · (x w_value + b_value)

    Args:
      features: Number of outputs.
      activation: Activation of the gate. Sigmoid gives GLU, `jax.nn.gelu` gives GEGLU, `jax.nn.silu` gives SwiGLU.
      bias: True to add the biases.
      w_init: Initialiser of both weights.

    Shapes: x (batch, ..., inputs) -> y (batch, ..., features). Parameters `{"gate", "value"}`, each
    `{"w": (inputs, features), "b": (features,)}`.

    Raises:
      ValueError: if features < 1; in `init` and `apply`, if x has no batch axis or the wrong number of features.
      TypeError: if features is not an integer, or x is not floating-point.

    >>> layer = nn.gated_dense(8, activation=jax.nn.silu)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> layer.apply(params, state, jnp.ones((32, 4)), train=False)[0].shape
    (32, 8)

    Source: Dauphin et al. 2017, arXiv:1612.08083; Shazeer 2020, arXiv:2002.05202.
    """
    features = checks.positive_int("gated_dense", "features", features)
    name = f"gated_dense({features})"
    bias = checks.flag(name, "bias", bias)
    check_initialisers(name, w_init)
    checks.function(name, "activation", activation, "jax.nn.silu")

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        checks.batched(name, x)
        shape, b_init = (x.shape[-1], features), zeros if bias else None
        gate, value = (init_affine(jax.random.fold_in(key, i), x, shape, w_init, b_init) for i in range(2))
        return {"gate": gate, "value": value}, ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        checks.batched(name, x)
        check_parts(name, params, ("gate", "value"), features, bias=bias)
        checks.features(name, x, params["gate"]["w"].shape[0])
        gate, value = (affine(x, params[part]["w"], params[part].get("b")) for part in ("gate", "value"))
        return activation(gate) * value, state

    return Layer(name, init, apply)


def maxout(features: int, pieces: int = 2, *, w_init: Initializer = he_normal()) -> Layer:
    """Compute, for each output, the largest of several affine maps (maxout).

        y_j = max_k (x w_jk + b_jk)

    Args:
      features: Number of outputs.
      pieces: Number of affine maps per output. ReLU is the special case of two maps, one of them zero.
      w_init: Initialiser of `w`.

    Shapes: x (batch, ..., inputs) -> y (batch, ..., features). Parameters `{"w": (inputs, features · pieces), "b":
    (features · pieces,)}`, in which the pieces of an output are adjacent.

    Raises:
      ValueError: if features or pieces < 1; in `init` and `apply`, if x has no batch axis or the wrong number of
        features.
      TypeError: if features or pieces is not an integer, or x is not floating-point.

    >>> layer = nn.maxout(8, 3)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> layer.apply(params, state, jnp.ones((32, 4)), train=False)[0].shape
    (32, 8)

    Source: Goodfellow et al. 2013, arXiv:1302.4389.
    """
    features = checks.positive_int("maxout", "features", features)
    pieces = checks.positive_int("maxout", "pieces", pieces)
    name = f"maxout({features}, {pieces})"
    check_initialisers(name, w_init)

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        checks.batched(name, x)
        return init_affine(key, x, (x.shape[-1], features * pieces), w_init, zeros), ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        checks.batched(name, x)
        checks.leaves(name, "params", params, affine_shapes(None, features * pieces, bias=True))
        checks.features(name, x, params["w"].shape[0])
        y = affine(x, params["w"], params["b"])
        return y.reshape(*y.shape[:-1], features, pieces).max(-1), state

    return Layer(name, init, apply)
