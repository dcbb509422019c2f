"""Initialise and apply the children of a combinator, with their own keys, name scopes and notes in errors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name

from nnjax import checks
from nnjax.nn.as_layer import checked_layer
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State

MARK = "nnjax_output"  # marks every child's output in the jaxpr for `summary`, without run-time cost


class Child(NamedTuple):
    """A layer and its position in a combinator."""

    parent: str  # the combinator's name
    position: int  # counted from 0
    total: int  # number of children
    layer: Layer
    label: str = ""  # name of the child, in a combinator that names its children


def children_of(parent: str, layers: Sequence[LayerLike], labels: Sequence[str] = ()) -> tuple[Child, ...]:
    """Return the layers of a combinator as numbered children, with their labels if there are any."""
    names = labels or [""] * len(layers)
    return tuple(
        Child(parent, i, len(layers), checked_layer(parent, layer), label)
        for i, (layer, label) in enumerate(zip(layers, names, strict=True))
    )


def init_child(child: Child, key: Key, x: PyTree) -> tuple[Params, State, PyTree]:
    """Return the child's parameters, its state, and the shapes and dtypes of its output.

    The key is folded with the position, so appending a layer does not change the earlier parameters.
    """
    with checks.located(_place(child, x)):
        check_arrays(child.parent, x)
        with checks.shapes_only():
            pair = child.layer.init(jax.random.fold_in(key, child.position), x)
        params, state = _pair(child.layer, "init", "(params, state)", pair)
        return params, state, output_shape(child.layer, params, state, x)


def apply_child(
    child: Child, params: Params, state: State, x: PyTree, *, train: bool, key: Key | None
) -> tuple[PyTree, State]:
    """Apply the child inside its own name scope, with its position folded into the key."""
    key = None if key is None else jax.random.fold_in(checks.key(child.parent, key), child.position)
    label = f"{child.label}=" if child.label else ""
    scope = f"{child.position}_{label}{child.layer.name.replace('/', '|')}"
    with checks.located(_place(child, x)), jax.named_scope(scope):
        check_arrays(child.parent, x)
        y, state = apply_layer(child.layer, params, state, x, train=train, key=key)
        return jax.tree.map(lambda leaf: checkpoint_name(leaf, MARK), y), state


def output_shape(layer: Layer, params: Params, state: State, x: PyTree) -> PyTree:
    """Return the shapes and dtypes of the layer's output, found by tracing `apply`."""
    return jax.eval_shape(lambda p, s, x: apply_layer(layer, p, s, x, train=False)[0], params, state, x)


def apply_layer(
    layer: Layer, params: Params, state: State, x: PyTree, *, train: bool, key: Key | None = None
) -> tuple[PyTree, State]:
    """Apply a layer and raise TypeError unless it returns arrays and a state."""
    y, state = _pair(layer, "apply", "(y, state)", layer.apply(params, state, x, train=train, key=key))
    wrong = [type(leaf).__name__ for leaf in jax.tree.leaves(y) if not hasattr(leaf, "dtype")]
    if y is None or wrong:
        raise TypeError(f"{layer.name}: the output must be an array, got {wrong[0] if wrong else 'None'}")
    return y, state


def _pair(layer: Layer, function: str, form: str, result: Any) -> tuple[Any, Any]:
    """Return a layer function's result; raise TypeError unless it is a tuple of two (arrays would unpack, too)."""
    if not isinstance(result, tuple) or len(result) != 2:
        got = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
        raise TypeError(f"{layer.name}: {function} must return {form}, got {got}")
    return result


def check_arrays(where: str, x: PyTree) -> None:
    """Raise TypeError unless all leaves of the input are arrays."""
    for leaf in jax.tree.leaves(x):
        checks.numbers(where, leaf)


def check_count(children: Sequence[Child], parent: str, params: Params, state: State) -> None:
    """Raise ValueError unless parameters and state are tuples with one entry per child."""
    n = len(children)
    for name, tree in (("params", params), ("state", state)):
        if not isinstance(tree, (tuple, list)) or len(tree) != n:
            got = f"{len(tree)} entries" if isinstance(tree, (tuple, list)) else type(tree).__name__
            fix = f"; pass the {name} that init returned" if isinstance(tree, tuple) and not tree else ""
            raise ValueError(f"{parent}: {name} must be a tuple of {n} entries, one per layer, got {got}{fix}")


def _place(child: Child, x: PyTree) -> str:
    number = f"{child.position + 1} of {child.total}" + (f" ({child.label})" if child.label else "")
    return f"in {child.parent} layer {number}, {child.layer.name}, input {checks.shapes(x)}"
