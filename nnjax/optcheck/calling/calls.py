"""Call a function with its arguments in a given order, and extract the updates from its result."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.optcheck.calling.adapter import SCALE, Adapter, difference, example_tree
from nnjax.optcheck.calling.kinds import StructureError, describe
from nnjax.optcheck.calling.layouts import PLAIN_TENSORS, Layout, from_pairs, layer_pairs, no_gradients
from nnjax.optcheck.calling.names import Argument, arguments_of
from nnjax.optcheck.calling.objective import OF_OBJECTIVE, of_objective
from nnjax.optcheck.calling.verdicts import has_shapes, tree_size, works_under_jit
from nnjax.optcheck.trace.deadline import TimeLimitError
from nnjax.types import PyTree

BUILDERS = ("build", "init", "initialize", "setup")  # methods that create an object's state from parameters


class Mode(NamedTuple):
    """The leaves that the optimizer receives in one call."""

    per_leaf: bool  # True if each call receives one leaf, or one weight and one bias
    ndim: int  # minimum number of dimensions of a leaf


class Target(NamedTuple):
    """A function or method to bind."""

    name: str
    fresh: Callable[[], Callable[..., Any]]  # returns the function, or the method of a new copy of an object
    owns_state: bool  # True for methods and closures, which each run must create anew


class Outcome(NamedTuple):
    """The positions of the states, and of the parameters or updates, in the result of a call."""

    kind: str  # "params", "updates", or "in place"
    position: int | None = None  # index of parameters or updates in a returned tuple; None if there is no such tuple
    # indices or names of the new states in the result, or None for the whole result; () if they are changed in place
    memory: tuple[int | str | None, ...] = ()
    moves: bool = True  # False if the updates of the trial steps are all zero
    keeps: bool = False  # True if callers keep their arrays, so that `id(array)` identifies them at every step


class Binding(NamedTuple):
    """A way to call a function: the roles and the layout of its arguments, and the initial values of its state."""

    arguments: tuple[Argument, ...]
    roles: tuple[str, ...]
    layout: Layout
    start: Callable[[PyTree], tuple[Any, ...]]  # parameters -> initial values of the state arguments
    start_text: str
    first_count: int
    outcome: Outcome


def try_binding(target: Target, binding: Binding, array: Callable[..., Any], mode: Mode) -> Outcome:
    """Take two steps with example inputs, and return the outcome of the first call."""
    params, grads, other = (_example(binding, mode, array, seed) for seed in range(3))
    params = jax.tree.map(lambda leaf: SCALE * leaf, params)
    memory, function = binding.start(params), _fresh(target, binding, params)  # init may write into a closure
    container = _container(binding.layout, params, grads)
    with np.errstate(all="ignore"):
        result = _call(function, binding, container, params, grads, memory, 0)
        outcome = _outcome_of(result, container, binding, params, memory)
        if outcome.kind == "updates":
            outcome = _without_gradients(target, binding, params, grads) or outcome
        first, memory = _read(result, container, binding._replace(outcome=outcome), params, memory)
        container = _refill(container if outcome.keeps else None, binding.layout, params, other)
        result = _call(function, binding, container, params, other, memory, 1)
        second, _ = _read(result, container, binding._replace(outcome=outcome), params, memory)
    zero = all(not np.any(np.asarray(leaf)) for leaf in jax.tree.leaves((first, second)))
    return outcome._replace(moves=not zero)


def _fresh(target: Target, binding: Binding, params: PyTree) -> Callable[..., Any]:
    """Return the function; if it is a method of an object with `build(variables)`, as in Keras, call that first.

    `init(params)` and similar methods are called too, because they may create the state of the object.
    """
    function = target.fresh()
    owner = getattr(function, "__self__", None)
    for build in [getattr(owner, name) for name in BUILDERS if callable(getattr(owner, name, None))]:
        required = [argument.role for argument in arguments_of(build) or () if argument.required]
        if required == ["params"]:
            build(binding.layout.pack(params))
    return function


def _without_gradients(target: Target, binding: Binding, params: PyTree, grads: PyTree) -> Outcome | None:
    """Return the outcome for zero gradients if it is new parameters, else None.

    A wrong first step, such as one divided by ε alone, may be so large that new parameters look like updates.
    """
    zeros = jax.tree.map(lambda leaf: 0 * leaf, grads)
    container = _container(binding.layout, params, zeros)
    try:
        memory, function = binding.start(params), _fresh(target, binding, params)
        result = _call(function, binding, container, params, zeros, memory, 0)
        outcome = _outcome_of(result, container, binding, params, memory)
    except TimeLimitError:
        raise
    except Exception:
        return None
    return outcome if outcome.kind == "params" else None


def _example(binding: Binding, mode: Mode, array: Callable[..., Any], seed: int) -> PyTree:
    """Return a small tree, or the part of it that one call receives."""
    tree = example_tree(array, seed, ndim=mode.ndim)
    if not mode.per_leaf:
        return tree
    leaves = jax.tree.leaves(tree)
    if any(role.startswith("params ") for role in binding.roles):
        return tuple(leaves[i] for i in layer_pairs(tree)[0])
    return leaves[1]


def _container(layout: Layout, params: PyTree, grads: PyTree) -> Any:
    container = layout.pack(jax.tree.map(lambda leaf: np.array(leaf) if isinstance(leaf, np.ndarray) else leaf, params))
    if layout.attach is not None:
        layout.attach(container, params, jax.tree.map(np.array, grads))  # copies: a step may clear the gradients
    return container


def _refill(container: Any, layout: Layout, params: PyTree, grads: PyTree) -> Any:
    """Write new values into the arrays of a container; return a new container if there is none, or without arrays."""
    new = _container(layout, params, grads)
    if container is None:
        return new
    if layout.attach is not None and layout.name != PLAIN_TENSORS.name:
        layout.attach(container, params, jax.tree.map(np.array, grads))
        return container
    old_leaves, new_leaves = jax.tree.leaves(container), jax.tree.leaves(new)
    if not all(isinstance(leaf, np.ndarray) or hasattr(leaf, "copy_") for leaf in old_leaves):
        return new
    for old, value in zip(old_leaves, new_leaves, strict=True):
        if isinstance(old, np.ndarray):
            np.copyto(old, value)
        else:
            old.copy_(value)
    return container


def _call(
    function: Callable[..., Any], binding: Binding, container: Any, params: PyTree, grads: PyTree, memory: Any, k: Any
) -> Any:
    """Call the function at step k = 0, 1, …"""
    layout, values, keywords, states = binding.layout, [], {}, list(memory)
    packed = layout.pack_grads(grads)
    for argument, role in zip(binding.arguments, binding.roles, strict=False):
        kind, _, index = role.partition(" ")
        value: Any
        if kind == "params":
            value = container[int(index)] if index else container
        elif kind == "grads":
            value = packed[int(index)] if index else packed
        elif kind == "count":
            value = k + binding.first_count
        elif kind == "leaf":
            value = "leaf"
        elif kind in OF_OBJECTIVE:
            value = of_objective(kind, params, grads, layout)
        elif kind == "pairs":
            value = list(zip(jax.tree.leaves(packed), jax.tree.leaves(container), strict=True))
        elif states:
            value = states.pop(0)
        else:
            raise TypeError(f"no value for {argument.name}")
        if argument.keyword:
            keywords[argument.name] = value
        else:
            values.append(value)
    with no_gradients():
        return function(*values, **keywords)


def _outcome_of(result: Any, container: Any, binding: Binding, params: PyTree, memory: tuple[Any, ...]) -> Outcome:
    """Find the new parameters, which are close to the old ones, or the updates in a result, or changes in place."""
    layout, spread = binding.layout, any(role.startswith("params ") for role in binding.roles)
    parts: list[tuple[int | None, Any]] = [(None, result)]
    if (
        isinstance(result, tuple)
        and not spread
        and str(jax.tree.structure(result)) != str(jax.tree.structure(container))
    ):
        parts = list(enumerate(result))
    distances: dict[int | None, tuple[float, float]] = {}
    for position, part in parts:
        try:
            tree = layout.unpack(part[: len(params)] if spread else part, params)
            if has_shapes(tree, params):
                distances[position] = (tree_size(difference(tree, params)), tree_size(tree))
        except Exception:  # this part has a different structure
            continue
    count = binding.roles.count("state")
    close = {position: pair for position, pair in distances.items() if not pair[0] >= pair[1]}
    try:
        pairs = zip(jax.tree.leaves(layout.unpack(container, params)), jax.tree.leaves(params), strict=True)
        changed = any(np.any(np.asarray(a) != np.asarray(b)) for a, b in pairs)  # also if new values are NaN
    except Exception:
        changed = False
    if close:
        position, kind = min(close, key=lambda position: close[position][0]), "params"
    elif changed or (result is None and not distances):
        return Outcome("in place", None, _returned_states(result, container, binding, memory), keeps=True)
    elif distances:
        position, kind = next(iter(distances)), "updates"
    else:
        raise StructureError(describe(result), "new parameters with the same structure as the old ones")
    rest = [place for place, _ in parts if place is not None and place != position]
    places = tuple(rest[:count]) if len(rest) >= count else ()
    return Outcome(kind, position, places, keeps=changed or kind == "updates")


def _returned_states(
    result: Any, container: Any, binding: Binding, memory: tuple[Any, ...]
) -> tuple[int | str | None, ...]:
    """Return the positions of the new states in the result of a function that changes its parameters in place."""
    pairs = zip(binding.arguments, binding.roles, strict=False)
    names = [argument.name for argument, role in pairs if role == "state"]
    if isinstance(result, dict) and names and set(names) <= set(result):
        return tuple(names)
    if isinstance(result, tuple) and not (len(names) == 1 and _like(result, memory[0])):
        return tuple(range(len(result)))[: len(names)]
    is_state = len(names) == 1 and result is not container and result is not memory[0]
    return (None,) if is_state and (memory[0] is None or _like(result, memory[0])) and _has_arrays(result) else ()


def _like(value: Any, other: Any) -> bool:
    """Return True if two values are trees with the same structure."""
    return str(jax.tree.structure(value)) == str(jax.tree.structure(other))


def _has_arrays(value: Any) -> bool:
    return any(hasattr(leaf, "shape") for leaf in jax.tree.leaves(value))


def _read(result: Any, container: Any, binding: Binding, params: PyTree, memory: Any) -> tuple[PyTree, Any]:
    """Return the updates and the new values of the state arguments."""
    layout, outcome = binding.layout, binding.outcome
    part = container if outcome.kind == "in place" else result
    if outcome.position is not None:
        if not (isinstance(result, tuple) and len(result) > outcome.position):
            raise StructureError(describe(result), "(params, state)")
        part = result[outcome.position]
    if any(role.startswith("params ") for role in binding.roles):
        part = tuple(part[: len(params)])
    tree = layout.unpack(part, params)
    if str(jax.tree.structure(tree)) != str(jax.tree.structure(params)):
        raise StructureError(describe(tree), "new parameters with the same structure as the old ones")
    if outcome.memory:
        memory = tuple(result if place is None else result[place] for place in outcome.memory)
    return (tree if outcome.kind == "updates" else difference(tree, params)), memory


def adapter_of(
    target: Target, binding: Binding, array: Callable[..., Any], mode: Mode, *, check: bool = True
) -> Adapter:
    """Return an adapter that calls a function as the binding says; `check=False` makes it eager without a trial."""
    counts = "count" in binding.roles
    single = binding.roles.count("state") == 1 and not counts

    def init(params: PyTree) -> Any:
        memory = binding.start(params)
        count = ((jnp.zeros((), jnp.int32) if array is jnp.array else 0),) if counts else ()
        carry = memory[0] if single else (*memory, *count) or None
        return (_fresh(target, binding, params), None, carry) if target.owns_state else carry

    function = target.fresh()

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        call, container, carry = carry if target.owns_state else (function, None, carry)
        memory: tuple[Any, ...] = (carry,) if single else carry or ()
        memory, count = (memory[:-1], memory[-1]) if counts else (memory, 0)
        container = _refill(container if binding.outcome.keeps else None, binding.layout, params, grads)
        result = _call(call, binding, container, params, grads, memory, count)
        updates, memory = _read(result, container, binding, params, memory)
        carry = memory[0] if single else (*memory, *((count + 1,) if counts else ())) or None
        return updates, (call, container, carry) if target.owns_state else carry

    adapter = Adapter(target.name, "object" if target.owns_state else "step", init, step, array=array)
    adapter = adapter._replace(called=_called(target.name, binding, mode), ndim=mode.ndim)
    if mode.per_leaf:
        spread = any(role.startswith("params ") for role in binding.roles)
        adapter = _per_leaf(adapter, pairs=spread)
    if not check:
        return adapter._replace(eager=True)
    in_place = binding.outcome.kind == "in place" and binding.outcome.moves  # p -= … has no effect on arrays of JAX
    if target.owns_state or binding.layout.eager or not works_under_jit(adapter, moves=in_place):
        return adapter._replace(eager=True)
    return adapter._replace(array=jnp.array)


def _per_leaf(adapter: Adapter, *, pairs: bool) -> Adapter:
    """Return an adapter for whole trees that calls an adapter for a single array, or for one weight and one bias."""

    def split(tree: PyTree) -> list[Any]:
        leaves = jax.tree.leaves(tree)
        return [tuple(leaves[i] for i in pair) for pair in layer_pairs(tree)] if pairs else leaves

    def step(carries: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        rows = [adapter.step(*parts) for parts in zip(carries, split(params), split(grads), strict=True)]
        updates, carries = [row[0] for row in rows], [row[1] for row in rows]
        if pairs:
            return from_pairs(updates, params), carries
        return jax.tree.unflatten(jax.tree.structure(params), updates), carries

    return adapter._replace(init=lambda params: [adapter.init(part) for part in split(params)], step=step)


def _called(name: str, binding: Binding, mode: Mode) -> str:
    """Describe the call of a function, such as "optim(grads, params, state), on a flat dict"."""
    words = {
        "leaf": "name",
        "pairs": "zip(grads, params)",
        "objective": "a small quadratic",
        "gradient": "its gradient",
        "hessian": "the Hessian's diagonal, ½",
        "value": "its value, 1",
        "count": f"t = {binding.first_count}, {binding.first_count + 1}, …",
    }
    roles = []
    for argument, role in zip(binding.arguments, binding.roles, strict=False):
        word = words.get(role, role.replace(" 0", "[w]").replace(" 1", "[b]"))
        roles.append(f"{argument.name}={word}" if argument.keyword else word)
    text = f"{name}({', '.join(roles)})"
    text += f", on {binding.layout.name}" if binding.layout.name else ""
    text += ", on one leaf at a time" if mode.per_leaf else ""
    text += {0: "", 1: ", on arrays of at least 1 dimension", 2: ", on matrices only"}[mode.ndim]
    if binding.start_text and binding.start_text not in ("None", "init="):
        text += f"; the state starts as {binding.start_text}"
    returns = "; it returns updates, which are added to the parameters"
    return text + (returns if binding.outcome.kind == "updates" else "")
