"""Bind the arguments of functions and methods: by their names, then by calls on a few numbers."""

import dis
import functools
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.optcheck.calling.adapter import Adapter, difference, example_tree
from nnjax.optcheck.calling.kinds import NotAnOptimizerError, StructureError, describe
from nnjax.optcheck.calling.layouts import HOLDING, LAYOUTS, TREE, Layout, from_pairs, layer_pairs, no_gradients
from nnjax.optcheck.calling.names import COUNT, Argument, arguments_of, signature_text
from nnjax.optcheck.trace.deadline import TimeLimitError
from nnjax.types import PyTree

STRUCTURAL = (TypeError, AttributeError, KeyError, ValueError, IndexError, AssertionError, NotAnOptimizerError)
SCALE = 3.0  # of parameters in trials: updates are smaller


class Mode(NamedTuple):
    """Which leaves a call receives."""

    per_leaf: bool  # one leaf a call, or one weight and one bias
    ndim: int  # least number of dimensions


POWER = re.compile(r"b(eta)?_?[12](_?t|_?pow(er)?|_?prod(uct)?|\^t)", re.IGNORECASE)  # β₁ᵗ, which starts at 1
ZEROS = {  # z: zeros like the parameters, 0: a counter
    **{"zeros": "z", "(zeros, zeros, 0)": "zz0", "(zeros, zeros)": "zz"},
    **{"(0, zeros, zeros)": "0zz", "(zeros, 0)": "z0", "0": "0"},
}
MODES = (Mode(False, 0), Mode(True, 0), Mode(False, 1), Mode(True, 2))


class Target(NamedTuple):
    """A function or method to bind."""

    name: str
    fresh: Callable[[], Callable[..., Any]]  # returns the function; for objects, the method of a new copy
    owns_state: bool  # True for methods and closures: each run needs a fresh one


class Outcome(NamedTuple):
    """What a call returns."""

    kind: str  # "params", "updates", or "in place"
    position: int | None = None  # place of the parameters in a returned tuple; None if they are the whole result
    memory: tuple[int, ...] = ()  # places of the state arguments; () if they are changed in place


class Binding(NamedTuple):
    """How a function is called."""

    arguments: tuple[Argument, ...]
    roles: tuple[str, ...]
    layout: Layout
    start: Callable[[PyTree], tuple[Any, ...]]  # parameters -> first values of the state arguments
    start_text: str
    first_count: int
    outcome: Outcome


def bind(target: Target, init: Callable[..., Any] | str | None = None, order: tuple[str, ...] | None = None) -> Adapter:
    """Return the adapter of a function or method, after finding out how it is called.

    Args:
      target: the function or method.
      init: function of the parameters that returns the first state, or a tuple of first values if there are several
        state arguments; None to try usual ones.
      order: the role of each argument, such as ("grads", "params", "state"); None to infer it.

    Raises:
      NotAnOptimizerError: if it cannot be called, or two orders of arguments are possible.
    """
    arguments = arguments_of(target.fresh())
    if arguments is None:
        arguments = [Argument(name, name, True, False) for name in ("params", "grads", "state")]
    _refuse_unbound(target.name, arguments)
    if not target.owns_state and _keeps_state(target.fresh()):
        raise _hidden_state(target.name)
    errors: list[Exception] = []
    fallback: Adapter | None = None
    for array in (np.array, jnp.array):
        for mode in MODES if array is np.array else MODES[:2]:
            for layout in _layouts(arguments, mode):
                found = _bindings(target, arguments, layout, init, order, array, mode, errors)
                good = [binding for binding, sure in found if sure]
                if len(good) > 1:
                    _ask_for_order(target.name, good)
                if good:
                    return _adapter(target, good[0], array, mode)
                if found and fallback is None:
                    fallback = _adapter(target, found[0][0], array, mode)
    if fallback is not None:
        return fallback
    raise _refusal(target.name, arguments, errors)


def _layouts(arguments: list[Argument], mode: Mode) -> tuple[Layout, ...]:
    """Return the layouts to try. If no argument can be the gradients, parameters must hold them."""
    if mode.per_leaf:
        return (TREE,)
    if _spread(arguments):
        return ()
    roles = [argument.role for argument in arguments]
    could_be_grads = roles.count("grads") + 2 * roles.count("pairs") + roles.count("")
    return LAYOUTS if could_be_grads > ("params" not in roles) else HOLDING


def _bindings(
    target: Target,
    arguments: list[Argument],
    layout: Layout,
    init: Callable[..., Any] | str | None,
    order: tuple[str, ...] | None,
    array: Callable[..., Any],
    mode: Mode,
    errors: list[Exception],
) -> list[tuple[Binding, bool]]:
    """Return the bindings that can take a step, with True if their updates depend on the gradients."""
    found: list[tuple[Binding, bool]] = []
    if mode.per_leaf and _spread(arguments):
        orders = [_spread_roles(arguments)]
    else:
        orders = [order] if order else list(_orders(arguments, attached=layout.attach is not None))
    for roles in orders:
        for first in (0, 1):
            blank = Binding(tuple(arguments), roles, layout, lambda params: (), "", first, Outcome(""))
            binding = _first_start(target, blank, init, array, mode, errors)
            if binding is None:
                continue
            adapter = _adapter(target, binding, array, mode, check=False)
            verdict = _verdict(adapter)
            if first == 0 and "count" in roles and verdict != "impossible" and not _is_finite(adapter):
                continue  # 1 - β⁰ = 0: it counts from 1
            if verdict != "impossible":
                found.append((binding, verdict == "sure"))
            break
        if found and found[0][1] and {"params", "grads"} <= {a.role for a in arguments}:
            break  # the names tell
    if sum(sure for _, sure in found) > 1:
        adapters = [(pair, _adapter(target, pair[0], array, mode, check=False)) for pair in found if pair[1]]
        strong = [pair for pair, adapter in adapters if _depends_on_gradients(adapter)]
        found = strong or found
    return found


def _refuse_unbound(name: str, arguments: list[Argument]) -> None:
    """Raise for required arguments that are the loss or hyper-parameters."""
    for argument in arguments:
        if argument.role == "loss" and argument.required:
            raise NotAnOptimizerError(
                f"optcheck: {signature_text(name, arguments)} needs the loss function or data ({argument.name}), but "
                "optcheck has only gradients; pass its update alone:\n"
                "  def step(params, grads, state):\n"
                "      new_params, state = ...  # the update of these gradients\n"
                "      return new_params, state"
            )
    missing = [argument.name for argument in arguments if argument.role == "number" and argument.required]
    if missing:
        values = ", ".join(f"{name}=…" for name in missing)
        raise NotAnOptimizerError(
            f"optcheck: {signature_text(name, arguments)} needs values of {', '.join(missing)}; bind them:\n"
            f"  functools.partial({name}, {values})"
        )


def _spread(arguments: list[Argument]) -> list[str]:
    """Return the parameters that are separate arguments with gradients d…, such as w and b of (w, b, dw, db)."""
    names = [argument.name for argument in arguments]
    bases = [name for name in names if "d" + name in names or name + "_grad" in names]
    return bases if len(bases) > 1 else []


def _spread_roles(arguments: list[Argument]) -> tuple[str, ...]:
    bases = _spread(arguments)
    roles = []
    for argument in arguments:
        name, base = argument.name, argument.name.removeprefix("d").removesuffix("_grad")
        if name in bases:
            roles.append(f"params {bases.index(name)}")
        elif base in bases:
            roles.append(f"grads {bases.index(base)}")
        else:
            roles.append(argument.role or "state")
    return tuple(roles)


def _orders(arguments: list[Argument], *, attached: bool) -> Iterator[tuple[str, ...]]:
    """Yield the roles of all arguments: known names keep their role, the rest is permuted."""
    known = [argument.role for argument in arguments]
    roles = ["" if known.index(role) != i and role in ("params", "grads") else role for i, role in enumerate(known)]
    missing = [role for role in ("params", "grads") if role not in roles and "pairs" not in roles]
    missing = [role for role in missing if not (attached and role == "grads")]
    free = [i for i, role in enumerate(roles) if not role]
    seen = set()
    positions = [*itertools.permutations(free, len(missing))]
    if not missing or len(free) >= len(missing):
        for chosen in positions:
            new = list(roles)
            for role, i in zip(missing, chosen, strict=True):
                new[i] = role
            filled = tuple(role or "state" for role in new)
            if filled not in seen:
                seen.add(filled)
                yield filled
    usual = tuple(role or "state" for role in roles)
    if "params" in usual and "grads" in usual:  # the names may be wrong
        swap = {"params": "grads", "grads": "params"}
        yield tuple(swap.get(role, role) for role in usual)


# Starts ---------------------------------------------------------------------------------------------------------------


def _first_start(
    target: Target,
    binding: Binding,
    init: Callable[..., Any] | str | None,
    array: Callable[..., Any],
    mode: Mode,
    errors: list[Exception],
) -> Binding | None:
    """Return the binding with the first start with which it can take two steps, or None."""
    names = [argument.name for argument, role in zip(binding.arguments, binding.roles, strict=False) if role == "state"]
    for start, text in _starts(binding.layout, init, names):
        attempt = binding._replace(start=start, start_text=text)
        for _ in range(9):  # a dict gets a key whenever one is missing
            try:
                outcome = _try(target, attempt, array, mode)
            except TimeLimitError:
                raise
            except KeyError as error:
                errors.append(error)
                if text != "an empty dict" or not error.args or not isinstance(error.args[0], str):
                    break
                attempt = attempt._replace(start=_with_key(attempt.start, error.args[0], binding.layout))
                continue
            except Exception as error:  # any error: something else is tried
                errors.append(error)
                break
            return attempt._replace(outcome=outcome)
    return None


def _starts(
    layout: Layout, init: Callable[..., Any] | str | None, names: list[str]
) -> Iterator[tuple[Callable[[PyTree], tuple[Any, ...]], str]]:
    """Yield functions of the parameters that return the first values of the state arguments, and their text."""
    count = len(names)
    if count == 0:
        yield lambda params: (), ""
        return
    if callable(init):
        yield (lambda params: (init(layout.pack(params)),) if count == 1 else tuple(init(layout.pack(params)))), "init="
        return
    packers = [layout.pack] if layout.pack is layout.pack_grads or layout.attach else [layout.pack_grads, layout.pack]
    for pack in packers:
        zeros = functools.partial(_zeros, pack)
        if count > 1:
            powers = [POWER.fullmatch(name) is not None for name in names]
            text = "zeros" + (f", and {' and '.join(itertools.compress(names, powers))} as 1" if any(powers) else "")
            yield functools.partial(_repeat, zeros, powers), text
            continue
        if init != "zeros":
            yield (lambda params: (None,)), "None"
            yield (lambda params: ({},)), "an empty dict"
        for text, parts in ZEROS.items():
            yield functools.partial(_arrange, zeros, parts), text


def _zeros(pack: Callable[[PyTree], Any], params: PyTree) -> Any:
    return pack(jax.tree.map(lambda leaf: leaf * 0, params))


def _repeat(zeros: Callable[[PyTree], Any], powers: list[bool], params: PyTree) -> tuple[Any, ...]:
    """Return one value per state argument: 1 for the powers of decay rates, zeros for the others."""
    return tuple(1.0 if is_power else zeros(params) for is_power in powers)


def _arrange(zeros: Callable[[PyTree], Any], parts: str, params: PyTree) -> tuple[Any, ...]:
    """Return one state: zeros for each z, and a counter for each 0."""
    values = tuple(zeros(params) if part == "z" else 0 for part in parts)
    return (values if len(values) > 1 else values[0],)


def _with_key(
    start: Callable[[PyTree], tuple[Any, ...]], key: str, layout: Layout
) -> Callable[[PyTree], tuple[Any, ...]]:
    def new(params: PyTree) -> tuple[Any, ...]:
        zeros = 0 if key in COUNT else layout.pack(jax.tree.map(lambda leaf: leaf * 0, params))
        return ({**start(params)[0], key: zeros},)

    return new


# Calls ----------------------------------------------------------------------------------------------------------------


def _try(target: Target, binding: Binding, array: Callable[..., Any], mode: Mode) -> Outcome:
    """Return what a call returns, after two steps on one part of the parameters."""
    params, grads, other = (_example(binding, mode, array, seed) for seed in range(3))
    params = jax.tree.map(lambda leaf: SCALE * leaf, params)
    function, memory, container = target.fresh(), binding.start(params), _container(binding.layout, params, grads)
    with np.errstate(all="ignore"):
        result = _call(function, binding, container, params, grads, memory, 0)
        outcome = _outcome_of(result, container, binding, params, grads)
        _, memory = _read(result, container, binding._replace(outcome=outcome), params, memory)
        container = _container(binding.layout, params, other)
        result = _call(function, binding, container, params, other, memory, 1)
        _read(result, container, binding._replace(outcome=outcome), params, memory)
    return outcome


def _example(binding: Binding, mode: Mode, array: Callable[..., Any], seed: int) -> PyTree:
    """Return the part of a small tree that one call receives."""
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
        layout.attach(container, params, jax.tree.map(np.array, grads))  # it may clear them
    return container


def _call(
    function: Callable[..., Any], binding: Binding, container: Any, params: PyTree, grads: PyTree, memory: Any, k: Any
) -> Any:
    """Call the function at step k = 0, 1, …"""
    layout, values, keywords, states = binding.layout, [], {}, iter(memory)
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
        elif kind == "pairs":
            value = list(zip(jax.tree.leaves(packed), jax.tree.leaves(container), strict=True))
        else:
            value = next(states)
        if argument.keyword:
            keywords[argument.name] = value
        else:
            values.append(value)
    with no_gradients():
        return function(*values, **keywords)


def _outcome_of(result: Any, container: Any, binding: Binding, params: PyTree, grads: PyTree) -> Outcome:
    """Find the parameters or updates in what a call returns: the part that is closest to the parameters, or to 0."""
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
            if _has_shapes(tree, params):
                distances[position] = (_size(difference(tree, params)), _size(tree))
        except Exception:  # it has a different structure
            continue
    count = binding.roles.count("state")
    close = {position: pair for position, pair in distances.items() if not pair[0] >= pair[1]}
    try:
        changed = _size(difference(layout.unpack(container, params), params)) != 0
    except Exception:
        changed = False
    if close:
        position, kind = min(close, key=lambda position: close[position][0]), "params"
    elif changed or (result is None and not distances):
        places = range(len(result)) if isinstance(result, tuple) else ()
        return Outcome("in place", None, tuple(places)[:count])
    elif distances:
        position, kind = next(iter(distances)), "updates"
    else:
        raise StructureError(describe(result), "new parameters with the structure of the old ones")
    rest = [place for place, _ in parts if place is not None and place != position]
    return Outcome(kind, position, tuple(rest[:count]) if len(rest) >= count else ())


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
        raise StructureError(describe(tree), "new parameters with the structure of the old ones")
    memory = tuple(result[place] for place in outcome.memory) if outcome.memory else memory
    return (tree if outcome.kind == "updates" else difference(tree, params)), memory


def _adapter(target: Target, binding: Binding, array: Callable[..., Any], mode: Mode, *, check: bool = True) -> Adapter:
    """Return the adapter of a binding."""
    counts = "count" in binding.roles
    single = binding.roles.count("state") == 1 and not counts

    def init(params: PyTree) -> Any:
        memory = binding.start(params)
        count = ((jnp.zeros((), jnp.int32) if array is jnp.array else 0),) if counts else ()
        carry = memory[0] if single else (*memory, *count) or None
        return (target.fresh(), carry) if target.owns_state else carry

    function = target.fresh()

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        call, carry = carry if target.owns_state else (function, carry)
        memory: tuple[Any, ...] = (carry,) if single else carry or ()
        memory, count = (memory[:-1], memory[-1]) if counts else (memory, 0)
        container = _container(binding.layout, params, grads)
        result = _call(call, binding, container, params, grads, memory, count)
        updates, memory = _read(result, container, binding, params, memory)
        carry = memory[0] if single else (*memory, *((count + 1,) if counts else ())) or None
        return updates, (call, carry) if target.owns_state else carry

    adapter = Adapter(target.name, "object" if target.owns_state else "step", init, step, array=array)
    adapter = adapter._replace(called=_called(target.name, binding, mode), ndim=mode.ndim)
    if mode.per_leaf:
        spread = any(role.startswith("params ") for role in binding.roles)
        adapter = _per_leaf(adapter, pairs=spread)
    if not check:
        return adapter._replace(eager=True)
    if target.owns_state or binding.layout.eager or not _works_under_jit(adapter):
        return adapter._replace(eager=True)
    return adapter._replace(array=jnp.array)


def _per_leaf(adapter: Adapter, *, pairs: bool) -> Adapter:
    """Return the adapter of a tree around one that takes a single array, or one weight and one bias."""

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
    """Return how a function is called, such as "optim(grads, params, state), on a flat dict"."""
    words = {
        "leaf": "name",
        "pairs": "zip(grads, params)",
        "count": f"t = {binding.first_count}, {binding.first_count + 1}, …",
    }
    roles = []
    for argument, role in zip(binding.arguments, binding.roles, strict=False):
        word = words.get(role, role.replace(" 0", "[w]").replace(" 1", "[b]"))
        roles.append(f"{argument.name}={word}" if argument.keyword else word)
    text = f"{name}({', '.join(roles)})"
    text += f", on {binding.layout.name}" if binding.layout.name else ""
    text += ", on each leaf by itself" if mode.per_leaf else ""
    text += {0: "", 1: ", on arrays of at least 1 dimension", 2: ", on matrices only"}[mode.ndim]
    if binding.start_text and binding.start_text not in ("None", "init="):
        text += f"; the state starts as {binding.start_text}"
    return text + ("; it returns updates" if binding.outcome.kind == "updates" else "")


# Verdicts -------------------------------------------------------------------------------------------------------------


def _first_updates(adapter: Adapter, seeds: tuple[int, int]) -> list[PyTree]:
    """Return the updates of two steps with random parameters and gradients."""
    params, grads = (example_tree(adapter.array, seed, ndim=adapter.ndim) for seed in seeds)
    params, updates = jax.tree.map(lambda leaf: SCALE * leaf, params), []
    with np.errstate(all="ignore"):
        state = adapter.init(params)
        for _ in range(2):
            update, state = adapter.step(state, params, jax.tree.map(lambda leaf: leaf.copy(), grads))
            updates.append(update)
    return updates


def _verdict(adapter: Adapter) -> str:
    """Return "sure" if updates depend on gradients and keep parameters, "unsure" if not, "impossible" if it fails."""
    try:
        first, again = _first_updates(adapter, (0, 1)), _first_updates(adapter, (0, 1))
        other = _first_updates(adapter, (0, 2))
    except TimeLimitError:
        raise
    except Exception:
        return "impossible"
    if not _equal(first, again) and adapter.kind != "object":
        raise _hidden_state(adapter.name)
    params = jax.tree.map(lambda leaf: SCALE * leaf, example_tree(np.array, 0, ndim=adapter.ndim))
    grads = example_tree(np.array, 1, ndim=adapter.ndim)
    if not _has_shapes(first[0], params):
        return "unsure"
    new = jax.tree.map(lambda p, u: p + np.asarray(u), params, first[0])
    nearer_to_grads = min(_size(difference(new, grads)), _size(difference(first[0], grads))) < 0.5 * _size(first[0])
    return "unsure" if nearer_to_grads or _equal(first, other) else "sure"


def _depends_on_gradients(adapter: Adapter) -> bool:
    """Return True if the first update changes less with the parameters than with the gradients."""
    first, grads, params = (_first_updates(adapter, seeds)[0] for seeds in ((0, 1), (0, 2), (3, 1)))
    return _size(difference(params, first)) < _size(difference(grads, first))


def _is_finite(adapter: Adapter) -> bool:
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(_first_updates(adapter, (0, 1))))


def _works_under_jit(adapter: Adapter) -> bool:
    """Return True if two steps under jit give the updates of two eager steps."""

    def run(step: Any) -> list[PyTree]:
        params, *grads = (example_tree(jnp.array, seed, ndim=adapter.ndim) for seed in range(3))
        state, updates = adapter.init(params), []
        for grad in grads:
            update, state = step(state, params, grad)
            updates.append(update)
        return updates

    try:
        with np.errstate(all="ignore"):
            jitted, eager = run(jax.jit(adapter.step)), run(adapter.step)
    except TimeLimitError:
        raise
    except Exception:
        return False
    pairs = zip(jax.tree.leaves(jitted), jax.tree.leaves(eager), strict=True)
    return all(np.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True) for a, b in pairs)


def _size(tree: PyTree) -> float:
    """Return the norm of a tree; NaN counts as 0."""
    return float(np.sqrt(sum(np.nansum(np.asarray(leaf, np.float64) ** 2) for leaf in jax.tree.leaves(tree))))


def _has_shapes(tree: PyTree, like: PyTree) -> bool:
    leaves, others = jax.tree.leaves(tree), jax.tree.leaves(like)
    same = str(jax.tree.structure(tree)) == str(jax.tree.structure(like))
    return same and all(np.shape(a) == np.shape(b) for a, b in zip(leaves, others, strict=True))


def _equal(a: PyTree, b: PyTree) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(np.asarray(x), np.asarray(y), equal_nan=True) for x, y in pairs)


# Refusals -------------------------------------------------------------------------------------------------------------


def _keeps_state(function: Callable[..., Any]) -> bool:
    """Return True if a function assigns variables outside of itself (nonlocal or global)."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    return any(
        step.opname == "STORE_GLOBAL" or (step.opname == "STORE_DEREF" and step.argval in code.co_freevars)
        for step in dis.get_instructions(code)
    )


def _hidden_state(name: str) -> NotAnOptimizerError:
    function = name.rpartition(".")[2]
    return NotAnOptimizerError(
        f"optcheck: {name} keeps a state outside of its arguments, or draws random numbers, so runs would differ; pass "
        "the function that makes it:\n"
        "  def make():\n"
        f"      ...  # define {function} and its state here\n"
        f"      return {function}"
    )


def _ask_for_order(name: str, bindings: list[Binding]) -> None:
    """Raise, because two orders of arguments are possible."""
    orders = [", ".join(role.partition(" ")[0] for role in binding.roles) for binding in bindings]
    raise NotAnOptimizerError(
        f"optcheck: {name} can be called as {' or as '.join(f'{name}({order})' for order in orders)}; choose one: "
        f"order=({', '.join(repr(role) for role in bindings[0].roles)})"
    )


def _refusal(name: str, arguments: list[Argument], errors: list[Exception]) -> Exception:
    """Return the candidate's own exception, or the message with the lines that adapt it."""
    own = next((error for error in errors if not isinstance(error, STRUCTURAL)), None)
    if own is not None and len({type(error) for error in errors}) == 1:
        return own
    reason = f" ({type(errors[0]).__name__}: {(str(errors[0]).splitlines() or [''])[0]})" if errors else ""
    error = NotAnOptimizerError(
        f"optcheck: found no way to call {signature_text(name, arguments)} on gradients alone{reason}; adapt it:\n"
        "  def step(params, grads, state):  # pytrees of arrays; state is what the last call returned, first None\n"
        f"      new_params = ...             # call {name} here\n"
        "      return new_params, state"
    )
    error.__cause__ = errors[0] if errors else None
    return error
