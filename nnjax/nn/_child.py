"""One part of a combinator: its key, its place in errors, its name in programs."""

import jax
from jax.ad_checkpoint import checkpoint_name

from nnjax import checks
from nnjax.types import Key, Layer, Params, PyTree, State

MARK = "nnjax_output"  # every part marks its outputs in the jaxpr, for `summary`; it costs nothing in the program


def place(parent: str, i: int, n: int, layer: Layer, x: PyTree) -> str:
    """Where in the network an error arose."""
    return f"in {parent} layer {i + 1} of {n}, {layer.name}, input {checks.shapes(x)}"


def init_part(parent: str, i: int, n: int, layer: Layer, key: Key, x: PyTree) -> tuple[Params, State]:
    """`layer.init` as part i of n, with the i-th key, so that appending a part leaves the earlier ones as they were."""
    with checks.located(place(parent, i, n, layer, x)):
        return layer.init(jax.random.fold_in(key, i), x)


def apply_part(
    parent: str,
    i: int,
    n: int,
    layer: Layer,
    params: Params,
    state: State,
    x: PyTree,
    *,
    train: bool,
    key: Key | None,
) -> tuple[PyTree, State]:
    """`layer.apply` as part i of n."""
    with checks.located(place(parent, i, n, layer, x)), jax.named_scope(f"{i}_{layer.name.replace('/', '|')}"):
        key = None if key is None else jax.random.fold_in(checks.key(parent, key), i)
        y, state = layer.apply(params, state, x, train=train, key=key)
        return jax.tree.map(lambda leaf: checkpoint_name(leaf, MARK), y), state


def out_shape(layer: Layer, params: Params, state: State, x: PyTree) -> PyTree:
    """Shapes and dtypes of the layer's output, found by tracing its own `apply`: no formulas to keep in step."""
    return jax.eval_shape(lambda p, s, x: layer.apply(p, s, x, train=False)[0], params, state, x)


def check_count(parent: str, n: int, params: Params, state: State) -> None:
    """Parameters and state have one entry for each part."""
    for name, tree in (("params", params), ("state", state)):
        if not isinstance(tree, (tuple, list)) or len(tree) != n:
            got = f"{len(tree)} entries" if isinstance(tree, (tuple, list)) else type(tree).__name__
            raise ValueError(f"{parent}: {name} must be a tuple of {n} entries, one for each layer, got {got}")
