"""The dense layer: a vector of perceptrons without their non-linearity."""

import jax
from jax import Array
from jax.nn.initializers import zeros

from nnjax import checks
from nnjax.nn._affine import affine, affine_features_first
from nnjax.nn.initializers import he_normal
from nnjax.nn.shape import param_dtype
from nnjax.types import Initializer, Key, Layer, Params, State


def dense(
    features: int,
    *,
    bias: bool = True,
    w_init: Initializer = he_normal(),
    b_init: Initializer = zeros,
    features_first: bool = False,
) -> Layer:
    """The dense layer: each output is the dot product of the input with one column of weights, plus a bias.

        y = x w + b

    Args:
      features: width of the output.
      bias: whether there is a b; leave it out right before a `batch_norm`, which subtracts it again.
      w_init: initialiser of `w`. He's (variance 2 / inputs) keeps the size of activations under ReLU and its kin.
        Take `nn.initializers.glorot_normal()` before tanh or sigmoid and `lecun_normal()` for a last layer, as
        the models `mlp` and `residual_mlp` do by themselves.
      b_init: initialiser of `b`.
      features_first: compute (wᵀ xᵀ + b)ᵀ, the same numbers in another order in memory. On a CPU, where all layers are
        narrow, up to 32, and rows many, hundreds and more, steps are 1.1 to 1.7 times as fast; with a wider layer
        before it, the change of order costs more than it saves.

    Shapes: x (batch, ..., inputs) -> y (batch, ..., features). Parameters `{"w": (inputs, features), "b":
    (features,)}`.

    Raises:
      ValueError: for features < 1; in `init` and `apply` for an input without a batch axis or of another width.
      TypeError: for an input that is not floating.

    >>> layer = nn.dense(3)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((32, 4)))
    >>> y, state = layer.apply(params, state, jnp.ones((32, 4)), train=False)
    >>> y.shape
    (32, 3)

    Source: He et al. 2015, arXiv:1502.01852, for the initialisation.
    """
    features = checks.positive_int("dense", "features", features)
    name = f"dense({features})"

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        checks.batched(name, x)
        params = {"w": w_init(jax.random.fold_in(key, 0), (x.shape[-1], features), param_dtype(x))}
        if bias:
            params["b"] = b_init(jax.random.fold_in(key, 1), (features,), param_dtype(x))
        return params, ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        checks.batched(name, x)
        checks.features(name, x, params["w"].shape[0])
        function = affine_features_first if features_first else affine
        return function(x, params["w"], params["b"] if bias else None), state

    return Layer(name, init, apply)
