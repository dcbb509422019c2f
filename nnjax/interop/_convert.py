"""Pair the layers of a network with another library's weights, and convert them according to its conventions.

In this module, the other library's weights are a flat dictionary from paths to arrays.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from nnjax.interop._parts import Leaves, Part, parts_of, reorder_inputs, tree_paths
from nnjax.nn import as_layer
from nnjax.types import LayerLike, Params, PyTree, State

Conversion: TypeAlias = Callable[[Leaves], Leaves]
Names: TypeAlias = Mapping[str, str | None]


class Convention(NamedTuple):
    """Conversions of a layer's arrays by name, between nnjax (native) and another library (foreign)."""

    to_library: Conversion
    from_library: Conversion
    defaults: Mapping[str, float] = {}  # optional arrays of the other library, with the values that have no effect


class Library(NamedTuple):
    """The conventions of another library."""

    where: str  # its interop module, for messages
    separator: str  # separator between the parts of a path
    # (kind, arguments) of a layer -> a convention for each way to store it; () if the library has no such layer
    conventions: Callable[[str, str], Sequence[Convention]]
    channels_first: bool = False  # True if channels come before the spatial axes
    ordered: Callable[[str, str], bool] = lambda path, other: True  # returns True if the order of two paths is known


class Pair(NamedTuple):
    """A layer of the network, and the paths of its weights in the other library."""

    part: Part
    convention: Convention
    expected: Leaves  # shapes and dtypes of the other library's arrays, by name within the layer
    paths: Mapping[str, str]  # paths of these arrays, except for optional arrays that do not exist


def import_weights(
    library: Library, net: LayerLike, x: PyTree, weights: Leaves, names: Names | None
) -> tuple[Params, State]:
    """Convert the weights of another library to the parameters and state of a network."""
    shapes, parts = parts_of(library.where, net, x, channels_first=library.channels_first)
    copies: dict[str, dict[tuple[int, ...], jax.Array]] = {path: {} for path in shapes}
    for part, convention, expected, paths in _pairs(library, parts, weights, names or {}):
        leaves = {
            name: jnp.asarray(weights[paths[name]]).astype(struct.dtype).reshape(struct.shape)
            if name in paths
            else jnp.full(struct.shape, convention.defaults[name], struct.dtype)
            for name, struct in expected.items()
        }
        for name, leaf in reorder_inputs(part, convention.from_library(leaves), channels_first=False).items():
            path, copy = part.sources[name]
            copies[path][copy] = leaf.astype(shapes[path].dtype)
    values = [
        jnp.stack([leaf for _, leaf in sorted(by_copy.items())]).reshape(shapes[path].shape)
        for path, by_copy in copies.items()
    ]
    params, state = jax.eval_shape(as_layer(net).init, jax.random.key(0), x)
    trees = jax.tree.unflatten(jax.tree.structure({"params": params, "state": state}), values)
    return trees["params"], trees["state"]


def export_weights(
    library: Library, net: LayerLike, x: PyTree, trees: tuple[Params, State], like: Leaves, names: Names | None
) -> Leaves:
    """Return the weights of a network in the form of another library: new values, by path, for arrays of `like`."""
    shapes, parts = parts_of(library.where, net, x, channels_first=library.channels_first)
    arrays = tree_paths(*trees)
    for path in sorted(arrays.keys() | shapes.keys()):
        got = jnp.shape(arrays[path]) if path in arrays else "nothing"
        shape = shapes[path].shape if path in shapes else "nothing"
        if got != shape:
            raise ValueError(
                f"{library.where}: got {got} at {path}, but init of the network returns {shape} there; "
                "pass its params and state"
            )
    result = {}
    for part, convention, expected, paths in _pairs(library, parts, like, names or {}):
        leaves = {name: jnp.asarray(arrays[path])[copy] for name, (path, copy) in part.sources.items()}
        for name, leaf in convention.to_library(reorder_inputs(part, leaves, channels_first=True)).items():
            if name in paths:
                result[paths[name]] = leaf.reshape(like[paths[name]].shape)
            elif not bool((leaf == convention.defaults[name]).all()):
                raise ValueError(
                    f"{library.where}: the other network has no {name} {expected[name].shape} for {part}; so all "
                    f"values must be {convention.defaults[name]:g}"
                )
    return result


def leaf_conversions(leaves: Mapping[str, tuple[str, Any, Any]], defaults: Mapping[str, float] = {}) -> Convention:
    """Return a convention that converts each array of a layer separately, and skips arrays that do not exist.

    Args:
      leaves: name in nnjax -> (name in the other library, conversion to the other library, conversion back).
      defaults: see `Convention`.
    """

    def to_library(native: Leaves) -> Leaves:
        return {other: to(native[name]) for name, (other, to, _) in leaves.items() if name in native}

    def from_library(foreign: Leaves) -> Leaves:
        return {name: back(foreign[other]) for name, (other, _, back) in leaves.items() if other in foreign}

    return Convention(to_library, from_library, defaults)


def same(leaf: Any) -> Any:
    """Return an array unchanged."""
    return leaf


class Step(NamedTuple):
    """A key on the path of an array in a pytree."""

    position: int  # position among the keys of the same container
    name: str
    sorted: bool  # True if the keys of this container are in alphabetical order, as after sorting by JAX


def steps_of(node: Any, keys: Sequence[Any]) -> tuple[Step, ...]:
    """Return the steps to an array.

    Their positions follow the order of creation or, for sorted keys, the numbers in the keys.

    Args:
      node: nested dictionaries, tuples, and objects with attributes.
      keys: keys, positions and names of attributes that lead to the array.
    """
    steps = []
    for key in keys:
        children = dict(enumerate(node)) if isinstance(node, tuple) else node
        children = children if isinstance(children, Mapping) else vars(node)
        names = [_text(child) for child in children]
        alphabetical = names == sorted(names)
        if alphabetical:
            names.sort(key=_natural)
        steps.append(Step(names.index(_text(key)), _text(key), alphabetical))
        node = children[key if key in children else str(key)]
    return tuple(steps)


def are_ordered(a: Sequence[Step], b: Sequence[Step]) -> bool:
    """Return True if the order of two arrays is known.

    The order is lost if the first keys in which the paths differ are sorted and differ in more than numbers.
    """
    first, second = next(((p, q) for p, q in zip(a, b, strict=False) if p != q), (a[0], a[0]))
    return not first.sorted or _stem(first.name) == _stem(second.name)


def _text(key: Any) -> str:
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _stem(name: str) -> str:
    return re.sub(r"_?\d+", "", name)


# Pairs ---------------------------------------------------------------------------------------------------------------


def _pairs(library: Library, parts: Sequence[Part], weights: Leaves, names: Names) -> list[Pair]:
    """Pair each layer with the weights that `names` assigns to it, or else with the first unused weights that fit."""
    parts = [piece for part in parts for piece in _pieces(part, names)]
    _check_names(library, parts, weights, names)
    free = dict(weights)
    named_parts = [part for part in parts if part.path in names]
    pairs = [_named_pair(library, part, weights, names[part.path]) for part in named_parts]
    for named_pair in pairs:
        for path in named_pair.paths.values():
            if path not in free:
                raise ValueError(
                    f"{library.where}: names assigns {path} to two layers; the second is {named_pair.part}"
                )
            del free[path]
    remaining = [(part, _forms(library, part)) for part in parts if part.path not in names]
    # Layers with many arrays come first, because some of their arrays may look like a smaller layer
    remaining.sort(key=lambda item: max(_size(library, expected) for _, expected in item[1]), reverse=True)
    for part, forms in remaining:
        candidates = (pair for form in forms for pair in _candidates(library, part, *form, free))
        pair = next(candidates, None)
        if pair is None:
            convention, expected = forms[0]
            without = (
                ", or by None if that layer has no weights" if expected.keys() <= convention.defaults.keys() else ""
            )
            raise ValueError(
                f"{library.where}: {part} needs {_list(expected)}, but there are no such weights; "
                f"unused weights are {_list(free)}; pair them by names={{{part.path!r}: …}}{without}"
            )
        _check_order(library, pair, candidates, weights)
        pairs.append(pair)
        for path in pair.paths.values():
            del free[path]
    if free:
        raise ValueError(
            f"{library.where}: no layer takes {_list(free)}; leave them out, or pair them with layers by names=…"
        )
    for pair in pairs:
        _check_shapes(library, pair, weights)
    return pairs


def _pieces(part: Part, names: Names) -> list[Part]:
    """Split a layer into its affine maps if `names` contains one of them, such as "3/query"."""
    pieces = dict.fromkeys(name.split("/")[0] for name in part.shapes if "/" in name)
    paths = {piece: f"{part.path}/{piece}".lstrip("/") for piece in pieces}
    if not names.keys() & set(paths.values()):
        return [part]

    def select(piece: str, leaves: Mapping[str, Any]) -> dict[str, Any]:
        start = f"{piece}/"
        return {name.removeprefix(start): leaf for name, leaf in leaves.items() if name.startswith(start)}

    return [
        Part(path, "dense", "", select(piece, part.sources), select(piece, part.shapes), part.image)
        for piece, path in paths.items()
    ]


def _check_names(library: Library, parts: Sequence[Part], weights: Leaves, names: Names) -> None:
    paths = [part.path for part in parts]
    modules = sorted({other.rpartition(library.separator)[0] for other in weights})
    for path, name in names.items():
        if path not in paths:
            near = difflib.get_close_matches(path, paths, n=5, cutoff=0.0)
            raise ValueError(f"{library.where}: no layer has the path {path!r} in names; the nearest are {near}")
        if name is not None and name not in weights and not any(p.startswith(_start(library, name)) for p in weights):
            near = difflib.get_close_matches(name, modules, n=5, cutoff=0.0)
            raise ValueError(f"{library.where}: no weights start with {name!r} in names; the nearest are {near}")


def _start(library: Library, name: str) -> str:
    return name + library.separator if name else ""


def _forms(library: Library, part: Part) -> list[tuple[Convention, Leaves]]:
    """Return the conventions that fit a layer, each with the shapes of the other library's arrays."""
    forms = []
    for convention in library.conventions(part.kind, part.arguments):
        try:
            expected = _library_shapes(convention, part.shapes)
            back = jax.eval_shape(convention.from_library, expected)
        except KeyError:  # a layer of the same name, but with different arrays
            continue
        if {name: leaf.shape for name, leaf in back.items()} == {n: leaf.shape for n, leaf in part.shapes.items()}:
            forms.append((convention, expected))
    if not forms:
        raise ValueError(
            f"{library.where}: no weights can be converted for {part}; a single array is paired by "
            f"names={{{part.path!r}: …}}, and the layers around it can be converted one by one"
        )
    return forms


def _library_shapes(convention: Convention, native: Leaves) -> Leaves:
    """Return the shapes and dtypes of the other library's arrays, in the order of the convention."""
    names: list[str] = []

    def values(native: Leaves) -> list[Any]:
        foreign = convention.to_library(native)
        names.extend(foreign)
        return list(foreign.values())

    return dict(zip(names, jax.eval_shape(values, native), strict=True))


def _size(library: Library, expected: Leaves) -> tuple[int, int]:
    """Return the number of arrays of a layer, and the largest number of separators in their names."""
    return len(expected), max(name.count(library.separator) for name in expected)


def _named_pair(library: Library, part: Part, weights: Leaves, name: str | None) -> Pair:
    """Pair a layer with the weights that `names` assigns to it."""
    if name in weights and len(part.shapes) == 1:  # `name` is the path of one array, not of a module
        ((array, shape),) = part.shapes.items()
        return Pair(part, leaf_conversions({array: (array, same, same)}), {array: shape}, {array: name})

    def paths_in(expected: Leaves) -> dict[str, str]:
        paths = {} if name is None else {leaf: _start(library, name) + leaf for leaf in expected}
        return {leaf: path for leaf, path in paths.items() if path in weights}

    forms = [(convention, expected, paths_in(expected)) for convention, expected in _forms(library, part)]
    convention, expected, paths = max(forms, key=lambda form: len(form[2]))
    lacking = {leaf: expected[leaf] for leaf in expected if leaf not in paths and leaf not in convention.defaults}
    if lacking:
        raise ValueError(f"{library.where}: {part} needs {_list(lacking)} in {name!r}")
    return Pair(part, convention, expected, paths)


def _candidates(library: Library, part: Part, convention: Convention, expected: Leaves, free: Leaves) -> Iterator[Pair]:
    """Yield a pair for each group of unused weights that fits the layer, in the order of the weights."""
    by_module: dict[str, list[str]] = {}
    for path in free:
        by_module.setdefault(path.rpartition(library.separator)[0], []).append(path)
    starts = [
        path.removesuffix(name)
        for path in free
        for name in expected
        if path == name or path.endswith(library.separator + name)
    ]
    for start in dict.fromkeys(starts):
        paths = {name: start + name for name in expected}
        modules = {path.rpartition(library.separator)[0] for path in paths.values()}
        paths = {name: path for name, path in paths.items() if path in free}
        if (
            {path for module in modules for path in by_module.get(module, ())} == set(paths.values())
            and all(name in paths or name in convention.defaults for name in expected)
            and all(free[path].ndim == expected[name].ndim for name, path in paths.items())
        ):
            yield Pair(part, convention, expected, paths)


def _check_order(library: Library, pair: Pair, others: Iterable[Pair], weights: Leaves) -> None:
    """Check that the order of the pair's weights and other weights of the same shapes is known."""
    for other in others:
        path, similar = next(iter(pair.paths.values())), next(iter(other.paths.values()))
        same_shapes = all(
            name in pair.paths and weights[pair.paths[name]].shape == weights[path].shape
            for name, path in other.paths.items()
        )
        if same_shapes and not library.ordered(path, similar):
            raise ValueError(
                f"{library.where}: {path} and {similar} have equal shapes, and their order is lost, because the "
                f"dictionary is sorted; pair them by names={{{pair.part.path!r}: …}}"
            )


def _check_shapes(library: Library, pair: Pair, weights: Leaves) -> None:
    for name, path in pair.paths.items():
        got, shape = tuple(weights[path].shape), pair.expected[name].shape
        if got not in (shape, (1, *shape)):  # a single array may have a batch axis
            raise ValueError(f"{library.where}: {path} has shape {got}, but {pair.part} needs {shape}")


def _list(leaves: Mapping[str, Any]) -> str:
    texts = [f"{path} {tuple(leaf.shape)}" for path, leaf in leaves.items()]
    return ", ".join(texts[:6]) + (f" and {len(texts) - 6} more" if len(texts) > 6 else "") if texts else "none"
