"""A trained factor for each feature."""

import jax.numpy as jnp
from jax import Array

from nnjax import checks
from nnjax.nn.shape import param_dtype, per_feature
from nnjax.types import Key, Layer, Params, State


def scale(initial: float = 1.0) -> Layer:
    """Each feature times a trained factor.

        y = scale · x

    Args:
      initial: value of all factors at first. At 0 at the end of a residual branch, the network starts as the identity
        however deep it is.

    Shapes: x (batch, ..., features) -> y, the same. Parameters `{"scale": (features,)}`.

    Raises:
      ValueError: for an input without a batch axis or of another width than the parameters.

    >>> layer = nn.scale(0.0)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((32, 4)))
    >>> float(layer.apply(params, state, jnp.ones((32, 4)), train=False)[0].max())
    0.0

    Source: Bachlechner et al. 2020 (ReZero), arXiv:2003.04887; Touvron et al. 2021 (LayerScale), arXiv:2103.17239.
    """
    initial = checks.in_range("scale", "initial", initial, "(-inf, inf)")

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        checks.batched("scale", x)
        return {"scale": jnp.full(x.shape[-1:], initial, param_dtype(x))}, ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        checks.batched("scale", x)
        checks.features("scale", x, params["scale"].shape[0])
        return x * per_feature(params["scale"], x), state

    return Layer("scale", init, apply)
