"""Plain functions as layers."""

from typing import Any

from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State


def as_layer(layer: LayerLike) -> Layer:
    """Return a layer unchanged, and a function `f` as the layer y = f(x) without parameters.

    Args:
      layer: A `Layer`, or any function of one array such as `jax.nn.relu`.

    Raises:
      TypeError: for anything else.

    >>> nn.as_layer(jax.nn.relu).name
    'relu'
    """
    return checked_layer("as_layer", layer)


def checked_layer(where: str, layer: LayerLike) -> Layer:
    """Return `as_layer(layer)`; errors name the function that the user called."""
    if isinstance(layer, Layer):
        return layer
    if not callable(layer):
        raise TypeError(
            f"{where}: a layer must be a Layer or a function of one array, got {type(layer).__name__}: {layer!r:.60}"
        )
    if getattr(layer, "__annotations__", {}).get("return") in (Layer, "Layer"):
        name = getattr(layer, "__name__", "it")
        raise TypeError(f"{where}: got the function {name}, which builds a layer; call it, as in {name}(…)")
    function = layer

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        return (), ()

    def apply(params: Params, state: State, x: Any, /, *, train: bool, key: Key | None = None) -> tuple[PyTree, State]:
        return function(x), state

    return Layer(getattr(function, "__name__", type(function).__name__), init, apply)


def identity() -> Layer:
    """Return the input unchanged: y = x.

    >>> nn.identity().apply((), (), 3.0, train=False)
    (3.0, ())
    """
    return as_layer(lambda x: x)._replace(name="identity")
