"""Pair the layers of a network with another library's weights, and convert them by the conventions of that library.

The weights of another library are a flat dictionary of arrays by path here.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from nnjax.interop._parts import Leaves, Part, inputs_reordered, parts_of, tree_paths
from nnjax.nn import as_layer
from nnjax.types import LayerLike, Params, PyTree, State

Conversion: TypeAlias = Callable[[Leaves], Leaves]
Names: TypeAlias = Mapping[str, str | None]


class Convention(NamedTuple):
    """How another library stores a layer: two conversions of its leaves by name."""

    to_theirs: Conversion
    to_ours: Conversion
    defaults: Mapping[str, float] = {}  # leaves that their layer may lack, with the value that has no effect


class Library(NamedTuple):
    """Another library."""

    where: str  # its module, for messages
    separator: str  # between the parts of a path
    conventions: Callable[[str, str], Sequence[Convention]]  # of a kind of layer and its arguments; several if stored
    # in several ways, () if the library has no such layer
    channels_first: bool = False  # whether channels come before the spatial axes


class Pair(NamedTuple):
    """A layer of the network and the weights that belong to it."""

    part: Part
    convention: Convention
    expected: Leaves  # shapes and dtypes of the other library's leaves, by name inside their layer
    found: Mapping[str, str]  # paths of those that there are


def import_weights(
    library: Library, net: LayerLike, x: PyTree, theirs: Leaves, names: Names | None
) -> tuple[Params, State]:
    """Return parameters and state of a network, with the weights of another library."""
    shapes, parts = parts_of(library.where, net, x, channels_first=library.channels_first)
    copies: dict[str, dict[tuple[int, ...], jax.Array]] = {path: {} for path in shapes}
    for part, convention, expected, found in _pairs(library, parts, theirs, names or {}):
        leaves = {
            name: jnp.asarray(theirs[found[name]]).astype(struct.dtype).reshape(struct.shape)
            if name in found
            else jnp.full(struct.shape, convention.defaults[name], struct.dtype)
            for name, struct in expected.items()
        }
        for name, leaf in inputs_reordered(part, convention.to_ours(leaves), channels_first=False).items():
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
    """Return the leaves of `like` that have a counterpart in the network, by path, with the network's values."""
    shapes, parts = parts_of(library.where, net, x, channels_first=library.channels_first)
    ours = tree_paths(*trees)
    for path in sorted(ours.keys() | shapes.keys()):
        got = jnp.shape(ours[path]) if path in ours else "nothing"
        wanted = shapes[path].shape if path in shapes else "nothing"
        if got != wanted:
            raise ValueError(f"{library.where}: got {got} at {path}, but init of the network returns {wanted} there")
    result = {}
    for part, convention, expected, found in _pairs(library, parts, like, names or {}):
        leaves = {name: jnp.asarray(ours[path])[copy] for name, (path, copy) in part.sources.items()}
        for name, leaf in convention.to_theirs(inputs_reordered(part, leaves, channels_first=True)).items():
            if name in found:
                result[found[name]] = leaf.reshape(like[found[name]].shape)
            elif not bool((leaf == convention.defaults[name]).all()):
                raise ValueError(
                    f"{library.where}: the other network has no {name} {expected[name].shape} for {part}; so all its "
                    f"values must be {convention.defaults[name]:g}"
                )
    return result


def renamed(leaves: Mapping[str, tuple[str, Any, Any]], defaults: Mapping[str, float] = {}) -> Convention:
    """Return the convention of leaves that correspond one by one; those that a layer does not have are left out.

    Args:
      leaves: by the name of our leaf, its name there, its conversion to there and back.
      defaults: leaves that their layer may lack.
    """

    def to_theirs(ours: Leaves) -> Leaves:
        return {theirs: to(ours[name]) for name, (theirs, to, _) in leaves.items() if name in ours}

    def to_ours(theirs: Leaves) -> Leaves:
        return {name: back(theirs[other]) for name, (other, _, back) in leaves.items() if other in theirs}

    return Convention(to_theirs, to_ours, defaults)


def same(leaf: Any) -> Any:
    """Return a leaf unchanged."""
    return leaf


# Pairs ---------------------------------------------------------------------------------------------------------------


def _pairs(library: Library, parts: Sequence[Part], theirs: Leaves, names: Names) -> list[Pair]:
    """Return each layer with its weights: by `names`, else the first that are left and have its leaves."""
    parts = [piece for part in parts for piece in _pieces(part, names)]
    _check_names(library, parts, theirs, names)
    free = dict(theirs)
    named = [part for part in parts if part.path in names]
    pairs = [_named_pair(library, part, theirs, names[part.path]) for part in named]
    for pair in pairs:
        for path in pair.found.values():
            if path not in free:
                raise ValueError(f"{library.where}: names gives {path} to two layers, the second is {pair.part}")
            del free[path]
    others = [(part, _forms(library, part)) for part in parts if part.path not in names]
    # Layers with many leaves come first, because a part of them may look like a smaller layer
    for part, forms in sorted(others, key=lambda item: max(_specificity(library, *form) for form in item[1]), reverse=True):
        pair = next((pair for form in forms for pair in _candidates(library, part, *form, free)), None)
        if pair is None:
            _, expected = forms[0]
            raise ValueError(
                f"{library.where}: {part} needs {_list(expected)}, but there are no such weights; unused are "
                f"{_list(free)}; pair them by names={{{part.path!r}: …}}, or by None if that layer has no weights"
            )
        pairs.append(pair)
        for path in pair.found.values():
            del free[path]
    if free:
        raise ValueError(
            f"{library.where}: no layer takes {_list(free)}; leave them out, or pair them with layers by names=…"
        )
    for pair in pairs:
        _check_shapes(library, pair, theirs)
    return pairs


def _pieces(part: Part, names: Names) -> list[Part]:
    """Return the affine maps of a layer one by one if `names` has one of them, such as "3/query"."""
    if not any(name.startswith(f"{part.path}/" if part.path else "") and name != part.path for name in names):
        return [part]
    pieces = dict.fromkeys(name.split("/")[0] for name in part.shapes if "/" in name)
    if not any(f"{part.path}/{piece}".lstrip("/") in names for piece in pieces):
        return [part]
    return [
        part._replace(
            path=f"{part.path}/{piece}".lstrip("/"),
            kind="dense",
            arguments="",
            sources={name.removeprefix(f"{piece}/"): source for name, source in part.sources.items() if name.startswith(f"{piece}/")},
            shapes={name.removeprefix(f"{piece}/"): shape for name, shape in part.shapes.items() if name.startswith(f"{piece}/")},
        )
        for piece in pieces
    ]


def _check_names(library: Library, parts: Sequence[Part], theirs: Leaves, names: Names) -> None:
    known = [part.path for part in parts]
    for path, name in names.items():
        if path not in known:
            near = difflib.get_close_matches(path, known, n=5, cutoff=0.0)
            raise ValueError(f"{library.where}: names has {path!r}, but no layer has this path; the nearest are {near}")
        starts = sorted({other.rpartition(library.separator)[0] for other in theirs})
        if name is not None and name not in theirs and not any(other.startswith(_start(library, name)) for other in theirs):
            near = difflib.get_close_matches(name, starts, n=5, cutoff=0.0)
            raise ValueError(f"{library.where}: names has {name!r}, but no weights start with it; the nearest are {near}")


def _start(library: Library, name: str) -> str:
    return name + library.separator if name else ""


def _forms(library: Library, part: Part) -> list[tuple[Convention, Leaves]]:
    """Return the conventions of a layer, each with the shapes of the other library's leaves."""
    conventions = library.conventions(part.kind, part.arguments)
    if not conventions:
        raise ValueError(
            f"{library.where}: no convention for {part}; pair its only leaf with names={{{part.path!r}: …}}, or convert "
            "the other layers of the network one by one"
        )
    return [(each, jax.eval_shape(each.to_theirs, part.shapes)) for each in conventions]


def _specificity(library: Library, convention: Convention, expected: Leaves) -> tuple[int, int]:
    return len(expected), max(name.count(library.separator) for name in expected)


def _named_pair(library: Library, part: Part, theirs: Leaves, name: str | None) -> Pair:
    """Return a layer with the weights that `names` gives it."""
    if name in theirs and len(part.shapes) == 1:  # a leaf of its own, outside of a layer
        (ours, shape), = part.shapes.items()
        return Pair(part, renamed({ours: (ours, same, same)}), {ours: shape}, {ours: name})
    forms = _forms(library, part)
    founds = [
        {leaf: _start(library, name) + leaf for leaf in expected if name is not None and _start(library, name) + leaf in theirs}
        for _, expected in forms
    ]
    (convention, expected), found = max(zip(forms, founds, strict=True), key=lambda item: len(item[1]))
    lacking = {leaf: expected[leaf] for leaf in expected if leaf not in found and leaf not in convention.defaults}
    if lacking:
        raise ValueError(f"{library.where}: {part} needs {_list(lacking)} in {name!r}")
    return Pair(part, convention, expected, found)


def _candidates(library: Library, part: Part, convention: Convention, expected: Leaves, free: Leaves) -> Any:
    """Yield the layer with each unused group of weights that has its leaves, in their order."""
    modules = {name.rpartition(library.separator)[0] for name in expected}
    starts = [
        path.removesuffix(name)
        for path in free
        for name in expected
        if path == name or path.endswith(library.separator + name)
    ]
    for start in dict.fromkeys(starts):
        found = {name: start + name for name in expected if start + name in free}
        inside = [path.removeprefix(start) for path in free if path.startswith(start)]
        others = [name for name in inside if name not in expected and name.rpartition(library.separator)[0] in modules]
        if (
            not others
            and all(name in found or name in convention.defaults for name in expected)
            and all(free[path].ndim == expected[name].ndim for name, path in found.items())
        ):
            yield Pair(part, convention, expected, found)


def _check_shapes(library: Library, pair: Pair, theirs: Leaves) -> None:
    for name, path in pair.found.items():
        got, wanted = tuple(theirs[path].shape), pair.expected[name].shape
        if got != wanted and got != (1, *wanted):  # a leaf of its own may have an axis for the batch
            raise ValueError(f"{library.where}: {path} has shape {got}, but {pair.part} needs {wanted}")


def _list(leaves: Mapping[str, Any]) -> str:
    texts = [f"{path} {tuple(leaf.shape)}" for path, leaf in leaves.items()]
    return ", ".join(texts[:6]) + (f" and {len(texts) - 6} more" if len(texts) > 6 else "") if texts else "none"
