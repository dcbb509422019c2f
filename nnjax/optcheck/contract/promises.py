"""Does an optimizer keep the promises that jit, scan and vmap build on, whatever its formula?"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnjax import checks
from nnjax.optcheck.contract.violations import (
    Breach,
    attempt,
    broken,
    changed_paths,
    compared,
    content,
    failed,
    guarded,
    line,
    numbers,
    types,
)
from nnjax.optcheck.trace.adapters import Candidate, StructureError, method_of
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.types import PyTree

STEPS = 3
NOTHING = str(jax.tree.structure(None))
Step: TypeAlias = Callable[[Any, PyTree, PyTree], tuple[PyTree, Any]]


def breaches(candidate: Candidate, deadline: Deadline) -> list[Breach]:
    """All promises that an optimizer does not keep, on a few steps of a small tree.

    Args:
      candidate: the optimizer. "object" cannot be asked for lax.scan and jax.vmap; "torch" only whether it is
        deterministic and leaves gradients alone.
      deadline: looked at between checks.

    Returns:
      breaches and notes. A NaN that spreads is one even where the formula says so (clipping by the global norm, LAMB):
      drop it where a reference's NaN reaches the same leaves.

    Raises:
      OverdueError: at the deadline.
    """
    found: list[Breach] = []
    deadline.look()
    for some in (_pure if candidate.pure else _impure)(candidate):
        found += some
        deadline.look()
    return found


def returned(candidate: Candidate) -> list[Breach]:
    """What the first step returns, where that is nothing that could be compared with anything."""
    params, grads = _given(array=jnp.asarray if candidate.pure else np.array)
    try:
        updates, _ = candidate.step(candidate.init(params), params, grads[0])
    except StructureError as error:
        return [broken("updates", "", error.got, error.expected)]
    want, got = str(jax.tree.structure(grads[0])), str(jax.tree.structure(updates))
    if want != got:
        return [broken("updates", "", f"the structure {got}", f"that of the gradients, {want}")]
    for (path, leaf), grad in zip(jax.tree_util.tree_leaves_with_path(updates), jax.tree.leaves(grads[0]), strict=True):
        if np.shape(leaf) != grad.shape:
            return [broken("updates", checks.path_name(path), f"shape {np.shape(leaf)}", f"{grad.shape}")]
        if jnp.iscomplexobj(leaf):
            return [broken("updates", checks.path_name(path), "complex numbers", f"{grad.dtype}")]
    return []


def _pure(candidate: Candidate) -> Iterator[list[Breach]]:
    """jit is first, so that the eager steps find tracers that it leaves behind."""
    traced: list[None] = []

    def counted(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        traced.append(None)
        return candidate.step(carry, params, grads)

    step = jax.jit(counted)
    jitted = attempt(lambda: _run(candidate, step))
    traces, jits = len(traced), not isinstance(jitted, Exception)
    yield []
    eager = attempt(lambda: _run(candidate, candidate.step) + _run(candidate, candidate.step, seed=1))
    if isinstance(eager, Exception):
        yield [failed("tracer kept" if isinstance(eager, jax.errors.UnexpectedTracerError) else "eager", eager)]
        return
    yield (random := guarded("not deterministic", lambda: _repeated(candidate, eager)))
    mutated = guarded("mutation", lambda: _mutated(candidate, jnp.asarray))
    numpys = attempt(lambda: _mutated(candidate, np.array))  # that it takes NumPy's arrays is not promised
    yield mutated or ([] if isinstance(numpys, Exception) else numpys)
    plain = guarded("updates", lambda: _typed(candidate, *_given(), jits))
    begins = types(candidate.init(_given()[0]))[""] == NOTHING
    if traces > 1 + begins and not any(breach.what == "state" for breach in plain):
        plain.append(broken("traces", "", f"{traces} in {STEPS} steps", "1"))
    yield plain

    runs: dict[str, Callable[[Candidate], Any]] = {"jit": lambda _: jitted, "lax.scan": _scanned, "jax.vmap": _vmapped}
    differs = bool(random)  # one cause is enough, and chance is one
    unsteady = begins or any(breach.what in ("state", "traces") for breach in plain)  # of which lax.scan says the same
    seen: set[type[Exception]] = set()  # an error is told once for all transforms that meet it
    for mode, run in runs.items():
        got = attempt(lambda: run(candidate))  # noqa: B023
        if isinstance(got, Exception):
            told = type(got) in seen or (unsteady and mode == "lax.scan" and isinstance(got, TypeError))
            yield [] if told else [failed(mode, got)]
            seen.add(type(got))
        elif not differs:
            some = guarded(mode, lambda: compared(mode, got, eager, STEPS))  # noqa: B023
            yield some
            differs = bool(some)
    yield guarded("NaN spreads", lambda: _spread(candidate, step if jits else candidate.step, eager))
    yield from _trees(candidate, plain, jits)


def _impure(candidate: Candidate) -> Iterator[list[Breach]]:
    """Objects and PyTorch's, which run eagerly, on NumPy's arrays."""
    eager = attempt(lambda: _run(candidate, candidate.step))
    if isinstance(eager, Exception):
        yield [failed("eager", eager)]
        return
    yield (random := guarded("not deterministic", lambda: _repeated(candidate, eager)))
    yield guarded("mutation", lambda: _mutated(candidate, np.array))
    if candidate.kind == "torch":
        return
    yield (plain := guarded("updates", lambda: _typed(candidate, *_given(array=np.array), False)))
    yield [] if random else guarded("frozen under jit", lambda: _frozen(candidate))
    yield guarded("NaN spreads", lambda: _spread(candidate, candidate.step, eager))
    for some in _trees(candidate, plain, False):
        yield [breach._replace(severity="note") for breach in some]


def _given(seed: int = 0, array: Callable[..., Any] = jnp.asarray) -> tuple[PyTree, list[PyTree]]:
    """Parameters, and the gradients of each step: the same for a seed, and fresh copies."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return array(np.float32(rng.normal(size=shape)))

    trees = [{"layer": {"b": draw(3), "w": draw(2, 3)}, "temperature": draw()} for _ in range(1 + STEPS)]
    return trees[0], trees[1:]


def _run(candidate: Candidate, step: Step, seed: int = 0) -> list[PyTree]:
    """Updates of steps in a Python loop; the parameters stay as they are, so that rounding does not grow."""
    params, grads = _given(seed, jnp.asarray if candidate.pure else np.array)
    carry, updates = candidate.init(params), []
    for each in grads:
        update, carry = step(carry, params, each)
        updates.append(update)
    return updates


def _scanned(candidate: Candidate) -> list[PyTree]:
    params, grads = _given()

    def step(carry: Any, each: PyTree) -> tuple[Any, PyTree]:
        updates, carry = candidate.step(carry, params, each)
        return carry, updates

    _, updates = jax.jit(lambda carry, xs: lax.scan(step, carry, xs))(candidate.init(params), _stack(*grads))
    return [_part(updates, k) for k in range(STEPS)]


def _vmapped(candidate: Candidate) -> list[PyTree]:
    """The steps of one copy, then those of another."""
    (params, grads), (params1, grads1) = _given(0), _given(1)
    carry = _stack(candidate.init(params), candidate.init(params1))
    step, updates = jax.jit(jax.vmap(candidate.step)), []
    for each, each1 in zip(grads, grads1, strict=True):
        update, carry = step(carry, _stack(params, params1), _stack(each, each1))
        updates.append(update)
    return [_part(update, copy) for copy in range(2) for update in updates]


def _repeated(candidate: Candidate, first: list[PyTree]) -> list[Breach]:
    changed = changed_paths(content(first[:STEPS]), content(_run(candidate, candidate.step)))
    where = [path.partition("/")[2] for path in changed[:1]]
    return [broken("not deterministic", path, "other updates from the same inputs", "the same bits") for path in where]


def _mutated(candidate: Candidate, array: Callable[..., Any]) -> list[Breach]:
    """What of a step's inputs is another after it."""
    params, (grads, *_) = _given(array=array)
    carry = candidate.init(params)
    inputs = {"params": params, "grads": grads, "state": _state(candidate, carry) if candidate.pure else ()}
    before = content(inputs)
    if candidate.kind != "object":
        candidate.step(carry, params, grads)
    elif method_of(carry[0])(params, grads) is None:  # it is to change the parameters
        inputs["params"] = _given(array=array)[0]
    if candidate.kind == "torch":  # tensors are copies of what is given
        inputs["grads"] = jax.tree.unflatten(jax.tree.structure(grads), [tensor.grad.numpy() for tensor in carry[1]])
    where = ", ".join(changed := changed_paths(before, content(inputs)))
    return [broken("mutation", where, "inputs that a step changed", "inputs left alone")] if changed else []


def _typed(candidate: Candidate, params: PyTree, grads: list[PyTree], traced: bool) -> list[Breach]:
    """Structures, shapes and dtypes: of updates those of gradients, of the state those that init made."""
    updates: list[dict[str, str]] = []
    states: list[dict[str, str]] = []

    def steps(carry: Any, params: PyTree, grads: list[PyTree]) -> None:
        states.append(types(_state(candidate, carry)))
        for each in grads:
            update, carry = candidate.step(carry, params, each)
            updates.append(types(update, weak=False))
            states.append(types(_state(candidate, carry)))

    carry = candidate.init(params)
    if traced:
        jax.eval_shape(steps, carry, params, grads)
    else:
        steps(carry, params, grads)
    found: list[Breach] = []
    pairs = [("updates", types(grads[0], weak=False), after) for after in updates]
    begun = states[0] if states[0][""] != NOTHING else states[1]  # a step function may begin with no state
    pairs += [("state", begun, after) for after in states[1:] if candidate.pure]
    for what, before, after in pairs:
        changed = changed_paths(before, after)
        if changed and what not in [breach.what for breach in found]:
            path, more = changed[0], f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
            found.append(broken(what, path, after.get(path, "nothing") + more, before.get(path, "nothing")))
    return found


def _trees(candidate: Candidate, plain: list[Breach], traced: bool) -> Iterator[list[Breach]]:
    """The same of trees with leaves of other kinds: only what is not so of the plain tree too."""
    known = {breach.what for breach in plain}

    def half(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree)

    trees: dict[str, Callable[[Any], Any]] = {
        "None leaves": lambda tree: tree | {"none": None},
        "empty leaves": lambda tree: tree | {"empty": tree["layer"]["b"][:0]},
    }
    if candidate.pure:
        trees |= {"bfloat16": half, "mixed dtypes": lambda tree: tree | {"layer": half(tree["layer"])}}
    for name, change in trees.items():
        params, grads = _given(array=jnp.asarray if candidate.pure else np.array)
        params, grads = change(params), [change(each) for each in grads]
        found = guarded(name, lambda: _typed(candidate, params, grads, traced))  # noqa: B023
        new = [breach for breach in found if breach.what not in known]
        known |= {breach.what for breach in found}
        severity: Any = "note" if name == "mixed dtypes" else "breach"  # flattened state has one dtype
        yield [_under(name, breach)._replace(severity=severity) for breach in new]
        if name == "empty leaves" and not new:
            yield guarded(name, lambda: _nan_of_nothing(candidate, params, grads[0]))  # noqa: B023


def _under(name: str, breach: Breach) -> Breach:
    return breach if breach.what == name else breach._replace(what=name, got=f"{breach.what} of {breach.got}")


def _nan_of_nothing(candidate: Candidate, params: PyTree, grads: PyTree) -> list[Breach]:
    """The mean over no elements is NaN: it must stay where they are not."""
    updates, _ = candidate.step(candidate.init(params), params, grads)
    bad = [path for path, leaf in jax.tree_util.tree_leaves_with_path(updates) if np.isnan(numbers(leaf)).any()]
    return [broken("empty leaves", checks.path_name(bad[0]), "NaN", "the numbers that are without them")] if bad else []


def _spread(candidate: Candidate, step: Step, eager: list[PyTree]) -> list[Breach]:
    """Where one NaN of a gradient gets to, in its step and the next."""
    array = jnp.asarray if candidate.pure else np.array
    params, grads = _given(array=array)
    w = np.array(grads[0]["layer"]["w"])
    w[0, 1] = np.nan
    grads[0]["layer"]["w"] = array(w)
    carry, reached = candidate.init(params), set()
    for each, without in zip(grads[:2], eager, strict=False):
        updates, carry = step(carry, params, each)
        new = jax.tree.map(lambda leaf, old: np.isnan(numbers(leaf)) & ~np.isnan(numbers(old)), updates, without)
        for path, leaf in jax.tree_util.tree_leaves_with_path(new):
            if leaf.sum() > ((name := checks.path_name(path)) == "layer/w"):
                reached.add(name)
    got = "NaN there, of one in the gradient of layer/w"
    return [broken("NaN spreads", ", ".join(sorted(reached)), got, "NaN in that element alone")] if reached else []


def _frozen(candidate: Candidate) -> list[Breach]:
    """jit of an object's own method against calls of it."""

    def run(wrap: Callable[[Any], Any]) -> list[PyTree]:
        params, grads = _given()
        step = wrap(method_of(candidate.init(params)[0]))
        return [step(jax.tree.map(jnp.asarray, params), each) for each in grads]

    got = attempt(lambda: run(jax.jit))
    if isinstance(got, jax.errors.UnexpectedTracerError):
        return [broken("frozen under jit", "", line(got), "the updates of eager steps")]
    if isinstance(got, Exception):
        return [failed("jit", got)._replace(severity="note")]
    if any(new is None for new in got):
        found = broken("jit", "", "nothing returned: parameters are changed in place", "new parameters")
        return [found._replace(remedy="return them, for jit sees no change in place", severity="note")]
    before = [_given()[0]] * STEPS
    one, other = (jax.tree.map(lambda new, old: new - old, news, before) for news in (got, run(lambda method: method)))
    return compared("jit", one, other, STEPS)


def _state(candidate: Candidate, carry: Any) -> Any:
    return carry[1] if candidate.kind == "triple" else carry


def _stack(*trees: PyTree) -> PyTree:
    leaves = zip(*map(jax.tree.leaves, trees), strict=True)
    return jax.tree.unflatten(jax.tree.structure(trees[0]), [jnp.stack(each) for each in leaves])


def _part(tree: PyTree, index: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index], tree)
