"""Build convolutional layers for any number of spatial axes."""

from jax import Array
from jax.nn.initializers import zeros

from nnjax import checks
from nnjax.nn._affine import affine_shapes, check_initialisers, init_affine
from nnjax.nn._convolve import convolve
from nnjax.nn._features import per_feature
from nnjax.nn._windows import Padding, PerAxis, Windows, check_windows, grid, kernel_sizes, per_axis
from nnjax.nn.initializers import he_normal
from nnjax.types import Initializer, Key, Layer, Params, State


def conv(
    features: int,
    kernel_size: PerAxis,
    *,
    strides: PerAxis = 1,
    padding: Padding = "SAME",
    dilation: PerAxis = 1,
    groups: int = 1,
    bias: bool = True,
    w_init: Initializer = he_normal(),
    b_init: Initializer = zeros,
) -> Layer:
    """Convolve over the spatial axes, with channels last (a cross-correlation, as in all deep learning libraries).

        y[p] = Σ_d x[strides·p + dilation·d] w[d] + b

    Args:
      features: Number of output channels.
      kernel_size: Size of the window along each spatial axis; an integer means the same size for all axes.
      strides: Step between windows, an integer or one per axis.
      padding: "SAME", "VALID", or (before, after) for each spatial axis.
      dilation: Distance between the elements of a window, an integer or one per axis.
      groups: Number of channel groups, convolved independently. It must divide the input channels and `features`.
      bias: True to add b.
      w_init: Initialiser of `w`. The default is He's, which suits ReLU (see `dense`).
      b_init: Initialiser of `b`.

    Shapes: x (batch, *spatial, inputs) -> y (batch, *spatial', features).
    Parameters `{"w": (*kernel_size, inputs / groups, features), "b": (features,)}`.

    Raises:
      ValueError: if a size is < 1, if the padding is unknown, if `groups` does not divide the channels, or if the axes
        or channels of x do not match the parameters.
      TypeError: if a size is not an integer, or x is not floating-point.

    >>> layer = nn.conv(6, (5, 5))
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((2, 28, 28, 1)))
    >>> layer.apply(params, state, jnp.ones((2, 28, 28, 1)), train=False)[0].shape
    (2, 28, 28, 6)
    """
    name = f"conv({features}, {kernel_size})"
    features = checks.positive_int("conv", "features", features)
    groups = checks.positive_int(name, "groups", groups)
    if features % groups:
        raise ValueError(f"{name}: groups must divide features, got {groups} groups for {features} features")
    bias = checks.flag(name, "bias", bias)
    check_initialisers(name, w_init, b_init)
    windows = check_windows(name, Windows("kernel_size", kernel_size, strides, padding, dilation))

    def init(key: Key, x: Array, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        size = per_axis(name, x, windows.name, kernel_size)
        if x.shape[-1] % groups:
            raise ValueError(
                f"{name}: groups must divide the number of input channels, got {groups} for {x.shape[-1]} channels"
            )
        shape = (*size, x.shape[-1] // groups, features)
        return init_affine(key, x, shape, w_init, b_init if bias else None), ()

    def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
        shapes = affine_shapes(*kernel_sizes(kernel_size, params), None, features, bias=bias)
        checks.leaves(name, "params", params, shapes)
        w = params["w"]
        checks.batched(name, x, "(batch, *spatial, channels)", w.ndim)
        checks.features(name, x, w.shape[-2] * groups)
        y = convolve(x, w, grid(name, x, windows._replace(size=w.shape[:-2])), groups)
        return (y + per_feature(params["b"], y) if bias else y), state

    return Layer(name, init, apply)
