"""Build layers with learned scale factors."""

from jax import Array

from nnjax import checks
from nnjax.nn._features import check_scale, init_scale, per_feature
from nnjax.types import Key, Layer, Params, State


def scale(initial: float = 1.0) -> Layer:
    """Multiply each feature by a trained factor.

        y = scale · x

    Args:
      initial: Initial value of all factors. With 0 at the end of a residual branch, the residual block starts as the
        identity.

    Shapes: x (batch, ..., features) -> y, the same shape. Parameters `{"scale": (features,)}`.

    Raises:
      ValueError: if `initial` is not finite; in `init` and `apply`, if x has no batch axis or the wrong number of
        features.
      TypeError: if x is not floating-point.

    >>> layer = nn.scale(0.0)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((32, 4)))
    >>> float(layer.apply(params, state, jnp.ones((32, 4)), train=False)[0].max())
    0.0

    Source: Bachlechner et al. 2020 (ReZero), arXiv:2003.04887; Touvron et al. 2021 (LayerScale), arXiv:2103.17239.
    """
    initial = checks.in_range("scale", "initial", initial, "(-inf, inf)")

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        checks.key("scale", key, x)
        return init_scale("scale", x, bias=False, initial=initial), ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        check_scale("scale", x, params, bias=False)
        return x * per_feature(params["scale"], x), state

    return Layer("scale", init, apply)
