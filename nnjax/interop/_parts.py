"""List the layers of a network that have parameters or state."""

import math
import re
from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax import Array

from nnjax import nn
from nnjax.nn.summary import Path, layer_equations
from nnjax.types import LayerLike, Params, PyTree, State

Leaves: TypeAlias = dict[str, Any]  # arrays, or shapes and dtypes, by name or path
Image: TypeAlias = tuple[int, ...]  # (*spatial, channels); () for no image

BRANCHES = ("residual", "branch", "concat", "bidirectional")
KEEP_CHANNELS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "scale")
NOT_INPUTS = ("b", "g", "u")  # arrays whose first axis is not the inputs of the layer


class Part(NamedTuple):
    """A layer with parameters or state. A layer inside `repeat` has a part for each copy."""

    path: str  # path of the layer in the network; inside `repeat`, it contains the number of the copy
    kind: str  # name of the function that returns the layer, such as "dense"
    arguments: str  # the arguments in the layer's name, such as "64"
    sources: Mapping[str, tuple[str, tuple[int, ...]]]  # array -> (path in params or state, indices of the copy)
    shapes: Leaves  # shapes and dtypes of one copy, by array
    image: Image = ()  # shape of the image that is flattened before this layer; () if there is none

    def __str__(self) -> str:
        name = f"{self.kind}({self.arguments})" if self.arguments else self.kind
        return f"{name} at {self.path!r}" if self.path else name


def tree_paths(params: Params, state: State) -> Leaves:
    """Return the arrays in the parameters and the state by path."""
    return nn.paths({"params": params, "state": state})


def kind_of(name: str) -> tuple[str, str, list[int]]:
    """Parse a layer's name into its kind, its arguments and its repeat counts, outermost first."""
    copies = []
    while match := re.fullmatch(r"remat\((.*)\)|with_precision\((.*), \w+\)|repeat\((\d+), (.*)\)", name):
        name = match[1] or match[2] or match[4]
        copies += [int(match[3])] if match[3] else []
    call = re.fullmatch(r"(\w+)\((.*)\)", name)
    return (call[1], call[2], copies) if call else (name, "", copies)


def parts_of(where: str, net: LayerLike, x: PyTree, *, channels_first: bool) -> tuple[Leaves, list[Part]]:
    """Return the shapes of a network's arrays by path, and the parts of the network in the order of other libraries.

    Args:
      where: name of the module that the user called, for messages.
      net: the network.
      x: an input; only its shape and dtype are read.
      channels_first: True if the other library has channels before the spatial axes, so a flattened image has its
        values in a different order.
    """
    net = nn.as_layer(net)
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    shapes = tree_paths(params, state)
    names: dict[Path, str] = {(): net.name, **{row.path: row.name for row in nn.summary(net, x).rows}}
    inner = {path[:i] for path in names for i in range(len(path))}
    owners = {path: leaves for path in names if path not in inner and (leaves := _own_leaves(shapes, path))}
    images = _images(where, net, x, names, set(owners)) if channels_first else {}
    order = {path: i for i, path in enumerate(names)}
    parts: list[tuple[list[int], Part]] = []
    for path, leaves in owners.items():
        repeats = [(i, n) for i in range(len(path) + 1) for n in kind_of(names[path[:i]])[2]]
        for copy in product(*(range(n) for _, n in repeats)):
            steps, position = [], []
            for i in range(len(path) + 1):
                if i:
                    steps.append(str(path[i - 1]))
                    # In most other libraries, the shortcut of a residual block comes after its layers
                    shortcut_last = kind_of(names[path[: i - 1]])[0] == "residual"
                    position.append(-order[path[:i]] if shortcut_last else order[path[:i]])
                numbers = [number for number, (depth, _) in zip(copy, repeats, strict=True) if depth == i]
                steps += map(str, numbers)
                position += numbers
            kind, arguments, _ = kind_of(names[path])
            sources = {leaf: (whole, copy) for leaf, whole in leaves.items()}
            own_shapes = {
                leaf: jax.ShapeDtypeStruct(shapes[whole].shape[len(copy) :], shapes[whole].dtype)
                for leaf, whole in leaves.items()
            }
            part = Part("/".join(steps), kind, arguments, sources, own_shapes, images.get(path, ()))
            parts.append((position, part))
    missing = set(shapes) - {path for _, part in parts for path, _ in part.sources.values()}
    if missing:
        raise ValueError(
            f"{where}: no known layer owns {', '.join(sorted(missing)[:5])}; convert the networks inside your own "
            "combinators one by one"
        )
    return shapes, [part for _, part in sorted(parts, key=lambda pair: pair[0])]


def reorder_inputs(part: Part, leaves: Leaves, *, channels_first: bool) -> Leaves:
    """Reorder the inputs of a layer that follows a flattened image, for the other library or back.

    Args:
      part: the layer.
      leaves: the arrays of the layer.
      channels_first: True for the order of the other library, with channels first; False for the order of nnjax.
    """
    if not part.image:
        return leaves
    order = np.moveaxis(np.arange(math.prod(part.image)).reshape(part.image), -1, 0).ravel()
    order = order if channels_first else np.argsort(order)

    def reorder(name: str, leaf: Array) -> Array:
        return leaf if name.rpartition("/")[2] in NOT_INPUTS or len(leaf) != len(order) else leaf[order]

    return {name: reorder(name, leaf) for name, leaf in leaves.items()}


def _own_leaves(shapes: Leaves, path: Path) -> dict[str, str]:
    """Return the paths of the arrays of a layer, by their names within the layer, such as {"w": "params/3/w"}."""
    starts = ["/".join([tree, *map(str, path), ""]) for tree in ("params", "state")]
    return {leaf.removeprefix(start): leaf for start in starts for leaf in shapes if leaf.startswith(start)}


def _images(where: str, net: nn.Layer, x: PyTree, names: Mapping[Path, str], owners: set[Path]) -> dict[Path, Image]:
    """Return, by path, the shape of the image that is flattened before each layer with parameters; () for no image."""
    flattened = _flatten_inputs(net, x)
    result: dict[Path, Image] = {}
    image: Image = ()
    inside: Path = ()  # path of the branch that contains the last flattened image
    spatial = len(jax.tree.leaves(x)[0].shape) > 3  # True if the other library puts channels first
    for path, name in names.items():
        kind, _, _ = kind_of(name)
        if path in flattened and spatial and math.prod(flattened[path][:-1]) > 1 < flattened[path][-1]:
            image = flattened[path]
            inside = next((path[: i + 1] for i in reversed(range(len(path))) if _is_branch(names[path[:i]])), ())
        elif image and (_is_branch(name) or path[: len(inside)] != inside):
            raise ValueError(
                f"{where}: {name} at {'/'.join(map(str, path))!r} follows a flattened image {image}, whose values the "
                "other library orders differently; put the channels first before nn.flatten(), as in "
                "nn.serial(…, lambda x: jnp.moveaxis(x, -1, 1), nn.flatten(), …)"
            )
        if path in owners:
            result[path] = image
            if kind not in KEEP_CHANNELS:
                image, spatial = (), kind in ("conv", "conv_transpose")
    return result


def _is_branch(name: str) -> bool:
    return kind_of(name)[0] in BRANCHES


def _flatten_inputs(net: nn.Layer, x: PyTree) -> dict[Path, Image]:
    """Return the input shape of each `flatten` layer by path, without the batch axis."""
    trees = jax.eval_shape(net.init, jax.random.key(0), x)
    program = jax.make_jaxpr(lambda trees, x: net.apply(trees[0], trees[1], x, train=False))(
        trees, jax.eval_shape(lambda x: x, x)
    )
    return {
        path: tuple(equation.invars[0].aval.shape[1:])
        for path, name, equation in layer_equations(program.jaxpr)
        if name == "flatten" and equation.primitive.name == "reshape"
    }
