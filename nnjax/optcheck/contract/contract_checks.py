"""Check that an optimizer works under jit, scan and vmap, and with leaves of all kinds."""

import inspect
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnjax.optcheck.calling.adapter import Adapter, example_tree
from nnjax.optcheck.calling.kinds import StructureError
from nnjax.optcheck.contract.tree_comparison import (
    RELATIVE,
    changed_paths,
    compare_updates,
    leaf_bits,
    leaf_types,
    named_leaves,
    to_float64,
)
from nnjax.optcheck.contract.violations import (
    Violation,
    attempt,
    error_violation,
    make_violation,
    run_check,
)
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.types import PyTree

STEPS = 3
COUNTERS = "a float to the power of an integer counter, such as b1**t, is float32: cast it to the dtype of the leaf"
ROUNDING = {"bfloat16": 0.03, "float16": 4e-3}  # four times the machine epsilon of these dtypes
NO_STATE = str(jax.tree.structure(None))
Step: TypeAlias = Callable[[Any, PyTree, PyTree], tuple[PyTree, Any]]


def contract_violations(adapter: Adapter, deadline: Deadline) -> list[Violation]:
    """Take a few steps on a small tree and return all violations of the contract.

    Args:
      adapter: the optimizer. Eager code (NumPy, PyTorch, objects that keep state) need not support jit.
      deadline: the time limit, tested before the first and after each check.

    Returns:
      Violations and notes. A NaN that spreads is a violation even if the formula requires it (global norm clipping,
      LAMB): ignore it if NaN spreads to the same leaves in the reference.

    Raises:
      TimeLimitError: at the deadline.
    """
    violations: list[Violation] = []
    deadline.check()
    for group in (_pure_checks if adapter.pure else _eager_checks)(adapter):
        violations += group
        deadline.check()
    return violations


def structure_violations(adapter: Adapter) -> list[Violation]:
    """Return violations that prevent a comparison: a first update of wrong structure or shape, or complex updates."""
    params, grads = _inputs(adapter)
    try:
        updates, _ = adapter.step(adapter.init(params), params, grads[0])
    except StructureError as error:
        return [make_violation("updates", "", error.got, error.expected)]
    expected, got = str(jax.tree.structure(grads[0])), str(jax.tree.structure(updates))
    if expected != got:
        return [make_violation("updates", "", f"structure {got}", f"{expected}, as in the gradients")]
    for (path, leaf), grad in zip(named_leaves(updates), jax.tree.leaves(grads[0]), strict=True):
        if np.shape(leaf) != grad.shape:
            return [make_violation("updates", path, f"shape {np.shape(leaf)}", f"{grad.shape}")]
        if jnp.iscomplexobj(leaf):
            return [make_violation("updates", path, "complex numbers", f"{grad.dtype}")]
    return []


def _pure_checks(adapter: Adapter) -> Iterator[list[Violation]]:
    """Yield the violations of a pure optimizer. jit runs first, so that the eager steps find leaked tracers."""
    traces: list[None] = []

    def counting_step(state: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        traces.append(None)
        return adapter.step(state, params, grads)

    step = jax.jit(counting_step)
    jit_updates = attempt(lambda: _run(adapter, step))
    trace_count, can_jit = len(traces), not isinstance(jit_updates, Exception)
    yield []
    eager = attempt(lambda: _run(adapter, adapter.step) + _run(adapter, adapter.step, seed=1))
    if isinstance(eager, Exception):
        is_leak = isinstance(eager, jax.errors.UnexpectedTracerError)
        yield [error_violation("leaked tracer" if is_leak else "eager", eager)]
        return
    yield (nondeterminism := run_check("not deterministic", lambda: _check_repetition(adapter, eager)))
    mutations = run_check("mutation", lambda: _check_mutation(adapter, jnp.array))
    with_numpy = attempt(lambda: _check_mutation(adapter, np.array))  # optimizers need not support NumPy arrays
    yield mutations or ([] if isinstance(with_numpy, Exception) else with_numpy)
    plain = run_check("updates", lambda: _check_types(adapter, *_inputs(adapter), can_jit))
    starts_empty = leaf_types(adapter.init(_inputs(adapter)[0]))[""] == NO_STATE
    if trace_count > 1 + starts_empty and not any(violation.rule == "state" for violation in plain):
        plain.append(make_violation("recompilation", "", f"{trace_count} compilations in {STEPS} steps", "1"))
    yield plain

    runs: dict[str, Callable[[Adapter], Any]] = {
        "jit": lambda _: jit_updates,
        "lax.scan": _run_scan,
        "jax.vmap": _run_vmap,
    }
    differs = bool(nondeterminism)  # report one cause: random updates differ under every transform
    changes_state = starts_empty or any(violation.rule in ("state", "recompilation") for violation in plain)
    seen: set[type[Exception]] = set()  # report an error once for all transforms
    for mode, run in runs.items():
        updates = attempt(lambda: run(adapter))  # noqa: B023
        if isinstance(updates, Exception):
            reported = type(updates) in seen or (
                changes_state and mode == "lax.scan" and isinstance(updates, TypeError)
            )
            yield [] if reported else [error_violation(mode, updates)]
            seen.add(type(updates))
        elif not differs:
            violations = run_check(mode, lambda: compare_updates(mode, updates, eager, STEPS, _rounding(adapter)))  # noqa: B023
            yield violations
            differs = bool(violations)
    yield run_check("NaN spreads", lambda: _check_nan(adapter, step if can_jit else adapter.step, eager))
    yield from _check_trees(adapter, plain, can_jit)


def _eager_checks(adapter: Adapter) -> Iterator[list[Violation]]:
    """Yield the violations of optimizers that run eagerly: NumPy code, PyTorch's optimizers and stateful objects."""
    eager = attempt(lambda: _run(adapter, adapter.step))
    if isinstance(eager, Exception):
        yield [error_violation("eager", eager)]
        return
    yield run_check("not deterministic", lambda: _check_repetition(adapter, eager))
    yield run_check("mutation", lambda: _check_mutation(adapter, adapter.array))
    if adapter.kind == "torch":
        return
    if adapter.kind == "loop":
        yield _eager_note(adapter)
        return
    yield (plain := run_check("updates", lambda: _check_types(adapter, *_inputs(adapter), False)))
    yield run_check("NaN spreads", lambda: _check_nan(adapter, adapter.step, eager))
    for group in _check_trees(adapter, plain, False):
        yield [violation._replace(severity="note") for violation in group]
    yield _eager_note(adapter)


def _eager_note(adapter: Adapter) -> list[Violation]:
    """Return a note that an optimizer runs only eagerly, or a violation if it is a JAX function that jit rejects."""
    note = make_violation(
        "runs eagerly only", "", "NumPy code or an object with a state", "a function of its arguments"
    )
    if adapter.kind == "step":
        result = attempt(lambda: _run(adapter._replace(array=jnp.array), jax.jit(adapter.step)))
        if isinstance(result, jax.errors.ConcretizationTypeError) and not _is_numpy_code(result):
            return [error_violation("jit", result)]
    return [note._replace(severity="note")]


def _is_numpy_code(error: Exception) -> bool:
    """Return True if an error comes from a function whose module imports NumPy and not JAX."""
    spaces = [frame.f_globals for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [space for space in spaces if str(space.get("__name__")).partition(".")[0] not in ("jax", "nnjax")]
    modules = [value for value in (own[-1] if own else {}).values() if inspect.ismodule(value)]
    imported = {module.__name__.partition(".")[0] for module in modules}
    return "numpy" in imported and "jax" not in imported


def _inputs(adapter: Adapter, seed: int = 0, array: Callable[..., Any] | None = None) -> tuple[PyTree, list[PyTree]]:
    """Return new arrays of parameters and of the gradients of each step; equal seeds give equal values."""
    make = array or adapter.array
    trees = [example_tree(make, 10 * seed + i, ndim=adapter.ndim) for i in range(1 + STEPS)]
    return trees[0], trees[1:]


def _run(adapter: Adapter, step: Step, seed: int = 0) -> list[PyTree]:
    """Return the updates of a Python loop over the steps. Parameters are constant, so rounding errors do not grow."""
    params, grads = _inputs(adapter, seed)
    state, updates = adapter.init(params), []
    for grad in grads:
        update, state = step(state, params, grad)
        updates.append(update)
    return updates


def _run_scan(adapter: Adapter) -> list[PyTree]:
    params, grads = _inputs(adapter)

    def step(state: Any, grad: PyTree) -> tuple[Any, PyTree]:
        updates, state = adapter.step(state, params, grad)
        return state, updates

    _, updates = jax.jit(lambda state, xs: lax.scan(step, state, xs))(adapter.init(params), _stack(*grads))
    return [_index(updates, k) for k in range(STEPS)]


def _run_vmap(adapter: Adapter) -> list[PyTree]:
    """Return the updates of two copies under vmap: all steps of the first, then all steps of the second."""
    (params_0, grads_0), (params_1, grads_1) = _inputs(adapter, 0), _inputs(adapter, 1)
    state = _stack(adapter.init(params_0), adapter.init(params_1))
    step, updates = jax.jit(jax.vmap(adapter.step)), []
    for grad_0, grad_1 in zip(grads_0, grads_1, strict=True):
        update, state = step(state, _stack(params_0, params_1), _stack(grad_0, grad_1))
        updates.append(update)
    return [_index(update, copy) for copy in range(2) for update in updates]


def _check_repetition(adapter: Adapter, eager: list[PyTree]) -> list[Violation]:
    paths = changed_paths(leaf_bits(eager[:STEPS]), leaf_bits(_run(adapter, adapter.step)))
    if not paths:
        return []
    where = paths[0].partition("/")[2]  # the path without the step
    return [make_violation("not deterministic", where, "different updates for the same inputs", "the same bits")]


def _check_mutation(adapter: Adapter, array: Callable[..., Any]) -> list[Violation]:
    """Return a violation if a step changes its inputs in place."""
    params, (grads, *_) = _inputs(adapter, array=array)
    state = adapter.init(params)
    keeps_state = adapter.kind in ("optax", "pair", "triple")  # other kinds may update their state in place
    inputs = {"params": params, "grads": grads, "state": _state(adapter, state) if keeps_state else ()}
    before = leaf_bits(inputs)
    adapter.step(state, params, grads)
    where = ", ".join(paths := changed_paths(before, leaf_bits(inputs)))
    return [make_violation("mutation", where, "changed inputs", "unchanged inputs")] if paths else []


def _check_types(adapter: Adapter, params: PyTree, grads: list[PyTree], can_jit: bool) -> list[Violation]:
    """Check structures, shapes and dtypes: updates must match the gradients, and the state must keep its types."""
    updates: list[dict[str, str]] = []
    states: list[dict[str, str]] = []

    def run(state: Any, params: PyTree, grads: list[PyTree]) -> None:
        states.append(leaf_types(_state(adapter, state)))
        for grad in grads:
            update, state = adapter.step(state, params, grad)
            updates.append(leaf_types(update, weak=False))
            states.append(leaf_types(_state(adapter, state)))

    state = adapter.init(params)
    if can_jit:
        jax.eval_shape(run, state, params, grads)
    else:
        run(state, params, grads)
    pairs = [("updates", leaf_types(grads[0], weak=False), after) for after in updates]
    first_state = states[0] if states[0][""] != NO_STATE else states[1]  # a step function may start with the state None
    pairs += [("state", first_state, after) for after in states[1:] if adapter.pure]
    violations: list[Violation] = []
    for rule, before, after in pairs:
        paths = changed_paths(before, after)
        if paths and rule not in [violation.rule for violation in violations]:
            path, more = paths[0], f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
            violations.append(
                make_violation(rule, path, after.get(path, "nothing") + more, before.get(path, "nothing"))
            )
    return violations


def _check_trees(adapter: Adapter, plain: list[Violation], can_jit: bool) -> Iterator[list[Violation]]:
    """Check the types on trees with special leaves, and yield only violations that the plain tree does not have."""
    rules = {violation.rule for violation in plain}

    def halve(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree)

    trees: dict[str, Callable[[Any], Any]] = {
        "None leaves": lambda tree: tree | {"none": None},
        "empty leaves": lambda tree: tree | {"empty": jax.tree.leaves(tree)[0][:0]},
    }
    if adapter.pure:
        trees |= {"bfloat16": halve, "mixed dtypes": lambda tree: tree | {"layer": halve(tree["layer"])}}
    for name, change in trees.items():
        params, grads = _inputs(adapter)
        params, grads = change(params), [change(grad) for grad in grads]
        violations = run_check(name, lambda: _check_types(adapter, params, grads, can_jit))  # noqa: B023
        new = [_rename(violation, name) for violation in violations if violation.rule not in rules]
        if name == "bfloat16" and _has_integers(adapter):
            new = [violation._replace(remedy=f"{violation.remedy}; {COUNTERS}") for violation in new]
        rules |= {violation.rule for violation in violations}
        if name == "empty leaves" and not new:
            new = run_check(name, lambda: _check_empty(adapter, params, grads[0]))  # noqa: B023
        if name == "mixed dtypes":  # only a note, because optimizers that flatten the tree have one dtype
            new = [violation._replace(severity="note") for violation in new]
        yield new


def _has_integers(adapter: Adapter) -> bool:
    """Return True if the state contains an integer, such as a counter."""
    leaves = jax.tree.leaves(_state(adapter, adapter.init(_inputs(adapter)[0])))
    return any(jnp.issubdtype(jnp.result_type(leaf), jnp.integer) for leaf in leaves)


def _rename(violation: Violation, rule: str) -> Violation:
    return (
        violation
        if violation.rule == rule
        else violation._replace(rule=rule, got=f"{violation.rule} of {violation.got}")
    )


def _check_empty(adapter: Adapter, params: PyTree, grads: PyTree) -> list[Violation]:
    """Return a violation if a leaf without elements, whose mean is NaN, causes NaN in other leaves."""

    def paths_with_nan(params: PyTree, grads: PyTree) -> list[str]:
        updates, _ = adapter.step(adapter.init(params), params, grads)
        return [path for path, leaf in named_leaves(updates) if np.isnan(to_float64(leaf)).any()]

    without = [{name: node for name, node in tree.items() if name != "empty"} for tree in (params, grads)]
    usual = paths_with_nan(*without)  # a wrong rule may give NaN even without empty leaves
    paths = [path for path in paths_with_nan(params, grads) if path not in usual]
    return [make_violation("empty leaves", path, "NaN", "the same numbers as without them") for path in paths[:1]]


def _check_nan(adapter: Adapter, step: Step, eager: list[PyTree]) -> list[Violation]:
    """Return a violation if one NaN in a gradient reaches another element, in that step or the next."""
    params, grads = _inputs(adapter)
    w = np.array(grads[0]["layer"]["w"])
    w[0, 1] = np.nan
    grads[0]["layer"]["w"] = adapter.array(w)
    state, nan_paths = adapter.init(params), set()
    for grad, reference in zip(grads[:2], eager, strict=False):
        updates, state = step(state, params, grad)
        new = jax.tree.map(
            lambda leaf, old: np.isnan(to_float64(leaf)) & ~np.isnan(to_float64(old)), updates, reference
        )
        nan_paths |= {path for path, leaf in named_leaves(new) if leaf.sum() > (path == "layer/w")}
    got = "NaN there, from one NaN in the gradient of layer/w"
    return (
        [make_violation("NaN spreads", ", ".join(sorted(nan_paths)), got, "NaN in that element only")]
        if nan_paths
        else []
    )


def _rounding(adapter: Adapter) -> float:
    """Return the tolerance for updates, relative to the largest update. It is larger for low-precision states."""
    leaves = jax.tree.leaves(_state(adapter, adapter.init(_inputs(adapter)[0])))
    dtypes = [jnp.result_type(leaf) for leaf in leaves]
    return max([RELATIVE, *(ROUNDING[str(dtype)] for dtype in dtypes if str(dtype) in ROUNDING)])


def _state(adapter: Adapter, carry: Any) -> Any:
    return carry[1] if adapter.kind == "triple" else carry


def _stack(*trees: PyTree) -> PyTree:
    leaves = zip(*map(jax.tree.leaves, trees), strict=True)
    return jax.tree.unflatten(jax.tree.structure(trees[0]), [jnp.stack(group) for group in leaves])


def _index(tree: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[i], tree)
