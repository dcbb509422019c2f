"""Use plain functions as layers."""

from typing import Any

import jax

from nnjax import checks
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State


def as_layer(layer: LayerLike) -> Layer:
    """Turn a function `f` into the parameterless layer y = f(x); return a `Layer` unchanged.

    Args:
      layer: A `Layer`, or any function of one array such as `jax.nn.relu`.

    Raises:
      TypeError: if the argument is neither a layer nor a function of one array, such as a module of another library or
        a function that builds a layer.

    >>> nn.as_layer(jax.nn.relu).name
    'relu'
    """
    return checked_layer("as_layer", layer)


def checked_layer(where: str, layer: LayerLike) -> Layer:
    """Return `as_layer(layer)`, with errors that name the calling function `where`."""
    if isinstance(layer, Layer):
        checks.function_of(where, f"init of {layer.name}", layer.init, "key", "x")
        checks.function_of(
            where, f"apply of {layer.name}", layer.apply, "params", "state", "x", by_name=("train", "key")
        )
        return layer
    refuse_module(where, layer)
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


def refuse_module(where: str, layer: Any) -> None:
    """Raise TypeError for a module of another library, with advice on how to convert it."""
    classes = [(kind.__module__, kind.__name__) for kind in type(layer).__mro__]
    libraries = {module.partition(".")[0] for module, _ in classes}
    name = type(layer).__name__
    if "torch" in libraries:
        raise TypeError(
            f"{where}: {name} is a PyTorch module; build the network from layers of nnjax.nn and "
            "copy the weights by interop.torch.import_weights"
        )
    if "flax" in libraries and hasattr(layer, "bind"):
        raise TypeError(f"{where}: {name} is a Flax module; wrap it, as in interop.flax.from_linen({name}(…))")
    # Modules of nnx and Equinox are callable, so they would pass as functions, whose weights are never trained
    if any(module.startswith("flax.nnx") and kind == "Module" for module, kind in classes):
        raise TypeError(
            f"{where}: {name} is an nnx module of Flax; pass a function that builds it, as in "
            f"interop.flax.from_nnx(lambda rngs: {name}(…, rngs=rngs))"
        )
    if "equinox" in libraries and any(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(layer)):
        raise TypeError(
            f"{where}: {name} is a module of Equinox with weights; pass a function that builds it, as in "
            f"interop.equinox.from_module(lambda key: {name}(…, key=key))"
        )


def identity() -> Layer:
    """Make a layer that returns its input unchanged: y = x.

    >>> nn.identity().apply((), (), 3.0, train=False)
    (3.0, ())
    """
    return as_layer(lambda x: x)._replace(name="identity")
