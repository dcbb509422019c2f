"""Where a NaN or an infinity comes from: the program again, one primitive at a time."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.debug.found import Found, Loop, bad, counts, floating, value_range
from nnjax.types import PyTree

# Primitives that only hold another program, of the same inputs and outputs.
CALLS = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat2"}
EXTRA = {"rematted_computation"}  # scopes that JAX adds
MAX_APART = 8  # origins told apart in the inputs of one primitive; the others count as one


def first_nonfinite(function: Callable[..., PyTree], *args: PyTree, names: Sequence[str] | None = None) -> Found | None:
    """The first primitive, in program order, whose NaN or infinity arose from finite inputs and reaches an output.

    The program of `function(*args)` runs one primitive at a time, through the loops and programs inside it. Each
    element that is not finite remembers where it arose. A primitive passes that on where its result is finite once the
    element is replaced by a finite one; otherwise the primitive is itself an origin. What reaches no output is no fault
    (`jnp.where(x > 0, jnp.log(x), 0)`), nor is an infinity written into the program (masks, padding) until it makes
    a NaN, or reaches an output that nothing else spoils.

    Args:
      function: of arrays; `Run.step` for one.
      args: its arguments, values and not tracers. The one named "batch", the last without names, holds the batch: its
        leaves' common first axis is that of the rows.
      names: of the arguments, as in ("state", "batch").

    Returns:
      The origin; None where all outputs are finite. What the compiler alone does by fusing (16 bits) is not seen.
      "backward" is also a forward value that only the backward pass spoils the outputs with: 1 / (2 √x) at 0.

    Raises:
      TypeError: under `jit` or `vmap`.
      ValueError: for another number of names than of arguments.

    >>> from nnjax.debug.nonfinite import first_nonfinite
    >>> net = nn.serial(nn.dense(4), jnp.exp, nn.dense(2))
    >>> run = train.Run(net, losses.squared_error, optim.adam(1e-3), batch_size=3)
    >>> batch = data.Data(jnp.array([[1.0], [1e4], [0.0]]), jnp.zeros((3, 2)))
    >>> ts = run.init(jax.random.key(0), batch)
    >>> print(first_nonfinite(run.step, ts, batch, names=("state", "batch")))
    layer 1 exp (forward), primitive exp, rows 1 of the batch: ... inf in shape (3, 4), of inputs in ...
    """
    names = [f"args[{i}]" for i in range(len(args))] if names is None else list(names)
    if len(names) != len(args):
        raise ValueError(f"first_nonfinite: {len(args)} arguments need as many names, got {names}")
    if any(checks.is_traced(leaf) for leaf in jax.tree.leaves(args)):
        raise TypeError("first_nonfinite: it looks at values, so it must be called outside jit, vmap and grad")
    batch = names.index("batch") if "batch" in names else len(args) - 1
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(args[batch:][:1]) if jnp.ndim(leaf)}
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves((*args[:batch], *args[batch + 1 :]))]
    others = frozenset(tuple(sorted(shape[skip:])) for shape in shapes for skip in (0, 1))  # 1: one block of a repeat
    site = _Site((), (), 0, lengths.pop() if len(lengths) == 1 else None, others)
    program = jax.make_jaxpr(function)(*args)
    origins: list[Found] = []
    values = []
    for i, (name, arg) in enumerate(zip(names, args, strict=True)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(arg):
            array = jnp.asarray(leaf)
            mask = bad(array)
            rows = () if mask is None or not mask.ndim else _true_rows(mask)
            path_name = name + jax.tree_util.keystr(path)
            values.append(_given(array, origins, Found("argument", (), "", path_name, (), rows, *counts(array), ())))
            values[-1] = values[-1]._replace(of_batch=i == batch)
    with jax.debug_nans(False), jax.debug_infs(False):
        outputs = _run(program, values, site, origins)
    guilty = _ids(outputs)
    _mark_used(guilty, ("outputs",), origins)
    return min((_origin(origins, i) for i in sorted(guilty)), key=lambda found: found.kind == "constant", default=None)


# The rest keeps, for each element that is not finite, the id of its origin: origins[id // 2 - 1]. An odd id has come
# through the backward pass; ids grow in program order, and 0 is for finite elements.


class _Value(NamedTuple):
    array: Any
    ids: np.ndarray | None  # int32, of the array's shape; None where all is finite
    of_batch: bool  # whether it depends on the batch


class _Site(NamedTuple):
    """What stands around an equation."""

    stack: tuple[Any, ...]  # scopes and transforms
    loops: tuple[Loop, ...]
    first_row: int  # of the batch or micro-batch
    rows: int | None
    others: frozenset[tuple[int, ...]]  # shapes, sorted, of what is not the batch: parameters

    @property
    def scope(self) -> tuple[str, ...]:
        names = [entry.name for entry in self.stack if type(entry).__name__ == "Scope" and entry.name not in EXTRA]
        return tuple(name for i, name in enumerate(names) if i == 0 or name != names[i - 1])  # remat repeats a name

    def under(self, transform: str) -> bool:
        return any(type(entry).__name__ == "Transform" and entry.name == transform for entry in self.stack)


def _run(program: Any, args: Sequence[_Value], site: _Site, origins: list[Found]) -> list[_Value]:
    """The outputs of a program, of a closed one or of one without constants."""
    from jax.extend.core import Literal  # loads Pallas, which importing nnjax should not

    def read(atom: Any, site: _Site, primitive: str) -> _Value:
        if not isinstance(atom, Literal):
            return env[atom]
        aval: Any = atom.aval
        return _constant(np.asarray(atom.val, aval.dtype), site, primitive, origins)

    jaxpr = getattr(program, "jaxpr", program)
    env = dict(zip(jaxpr.invars, args, strict=True))
    for var, const in zip(jaxpr.constvars, getattr(program, "consts", ()), strict=True):
        env[var] = _constant(const, site, "the program", origins)
    for equation in jaxpr.eqns:
        inner = site._replace(stack=site.stack + equation.source_info.name_stack.stack)
        inputs = [read(atom, inner, equation.primitive.name) for atom in equation.invars]
        env.update(zip(equation.outvars, _equation(equation, inputs, inner, origins), strict=True))
    return [read(atom, site, "an output") for atom in jaxpr.outvars]


def _equation(equation: Any, inputs: list[_Value], site: _Site, origins: list[Found]) -> list[_Value]:
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        return _run(params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"], inputs, site, origins)
    if name == "cond":
        return _run(params["branches"][int(inputs[0].array)], inputs[1:], site, origins)
    if name == "while":
        return _while(params, inputs, site, origins)
    if name == "scan" and params["length"] > 0:
        return _scan(params, inputs, site, origins)
    return _primitive(equation, inputs, site, origins)


def _while(params: Any, inputs: list[_Value], site: _Site, origins: list[Found]) -> list[_Value]:
    n_cond, n_body = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    consts, carry, i = inputs[n_cond:n_body], inputs[n_body:], 0
    while _run(params["cond_jaxpr"], inputs[:n_cond] + carry, site, origins)[0].array:
        inner = site._replace(loops=(*site.loops, Loop("iteration", i, None, len(site.scope))))
        carry, i = _run(params["body_jaxpr"], consts + carry, inner, origins), i + 1
    return carry


def _scan(params: Any, inputs: list[_Value], site: _Site, origins: list[Found]) -> list[_Value]:
    n, n_consts, n_carry = params["length"], params["num_consts"], params["num_consts"] + params["num_carry"]
    consts, carry, xs = inputs[:n_consts], inputs[n_consts:n_carry], inputs[n_carry:]
    # Micro-batches are the batch, reshaped to (number, rows of each); inside a layer it could be so by chance.
    parts = [x.array.shape[:2] for x in xs if x.of_batch and x.array.ndim > 1]
    inside = any(re.match(r"\d+_", name) for name in site.scope)
    parted = not inside and any(number * size == site.rows for number, size in parts)
    rows = site.rows // n if parted and site.rows else site.rows
    kind = "block" if re.match(r"\d+_repeat\(", (site.scope or ("",))[-1]) else "iteration"
    results: list[list[_Value]] = []
    for i in range(n):
        at = n - 1 - i if params["reverse"] else i
        loop = Loop("micro-batch" if parted else kind, at, n, len(site.scope))
        first = site.first_row + at * rows if parted and rows else site.first_row
        inner = site._replace(loops=(*site.loops, loop), first_row=first, rows=rows)
        slices = [_Value(x.array[at], None if x.ids is None else np.asarray(x.ids[at]), x.of_batch) for x in xs]
        outputs = _run(params["jaxpr"], consts + carry + slices, inner, origins)
        carry = outputs[: len(carry)]
        results.append(outputs[len(carry) :])
    order = results[::-1] if params["reverse"] else results
    return carry + [_stack(list(ys)) for ys in zip(*order, strict=True)]


def _stack(values: list[_Value]) -> _Value:
    ids = [np.zeros(v.array.shape, np.int32) if v.ids is None else v.ids for v in values]
    arrays = [v.array for v in values]
    keys = jnp.issubdtype(arrays[0].dtype, jax.dtypes.extended)
    array = jnp.stack(arrays) if keys else jnp.asarray(np.stack(arrays))  # NumPy has nothing to compile
    return _Value(array, np.stack(ids) if any(v.ids is not None for v in values) else None, values[0].of_batch)


def _primitive(equation: Any, inputs: list[_Value], site: _Site, origins: list[Found]) -> list[_Value]:
    """One primitive: its outputs, and the origins of what is not finite in them."""
    backward = site.under("transpose")
    of_batch = any(v.of_batch for v in inputs)
    ids = sorted(_ids(inputs), key=lambda i: (_origin(origins, i).kind == "constant", i))
    if not backward:
        _mark_used(ids, site.scope, origins)
    outputs = _bind(equation, [v.array for v in inputs])
    wrong = [bad(array) for array in outputs]
    if all(w is None for w in wrong):
        return [_Value(array, None, of_batch) for array in outputs]

    masks = [np.zeros(np.shape(a), bool) if w is None else w for a, w in zip(outputs, wrong, strict=True)]
    owners = _inherited(equation, inputs, masks, ids)
    for array, mask, owner in zip(outputs, masks, owners, strict=True):
        if mask.any():
            meant = [i for i in ids if _origin(origins, i).kind == "constant" and not _origin(origins, i).nan]
            owner[np.isin(owner, meant) & np.isnan(np.asarray(array))] = 0  # ∞ - ∞
    fresh = [mask & (owner == 0) for mask, owner in zip(masks, owners, strict=True)]
    if any(mask.any() for mask in fresh):
        array, mask = next((np.asarray(a), m) for a, m in zip(outputs, fresh, strict=True) if m.any())
        array = np.where(mask, array, array.dtype.type(0))
        # What only its derivative makes of a forward value is known later: `_mark_used`.
        phase = "backward" if backward or site.under("jvp") else _phase(site.scope)
        rows = _rows(mask, site, backward) if of_batch else ()
        ranges = tuple(value_range(v.array) for v in inputs if floating(v.array) and v.array.size)
        origins.append(
            Found("primitive", site.scope, phase, equation.primitive.name, site.loops, rows, *counts(array), ranges)
        )
        owners = [np.where(m, 2 * len(origins), owner) for m, owner in zip(fresh, owners, strict=True)]
    if backward:
        owners = [np.where(owner > 0, owner | 1, 0) for owner in owners]
    return [
        _Value(array, owner if mask.any() else None, of_batch)
        for array, mask, owner in zip(outputs, masks, owners, strict=True)
    ]


def _inherited(equation: Any, inputs: list[_Value], masks: list[np.ndarray], ids: list[int]) -> list[np.ndarray]:
    """The origins of bad outputs among those of the inputs; 0 for what is bad whatever the inputs' bad elements are."""
    owners = [np.zeros(mask.shape, np.int32) for mask in masks]
    groups = [[i] for i in ids[:MAX_APART]] if len(ids) > 1 else []
    for group in [*groups, ids] if ids else []:  # each alone, then all: NaN + NaN is cured only together
        still = masks
        for finite in (1.0, 0.5):  # values at which no common function has a singularity, log, 1/x and atanh included
            replaced = [_replace(v, group, finite) for v in inputs]
            again = [bad(array) for array in _bind(equation, replaced)]
            still = [s & (False if a is None else a) for s, a in zip(still, again, strict=True)]
        for owner, mask, remains in zip(owners, masks, still, strict=True):
            owner[mask & ~remains & (owner == 0)] = group[0]
    return owners


def _replace(value: _Value, ids: list[int], finite: float) -> Any:
    if value.ids is None or not np.isin(value.ids, ids).any():
        return value.array
    array = np.asarray(value.array)
    return jnp.asarray(np.where(np.isin(value.ids, ids), array.dtype.type(finite), array))


def _bind(equation: Any, arrays: list[Any]) -> list[Any]:
    with equation.ctx.manager:
        result = equation.primitive.bind(*arrays, **equation.primitive.get_bind_params(equation.params))
    return list(result) if equation.primitive.multiple_results else [result]


def _constant(value: Any, site: _Site, primitive: str, origins: list[Found]) -> _Value:
    phase = "backward" if site.under("transpose") else _phase(site.scope)
    return _given(value, origins, Found("constant", site.scope, phase, primitive, site.loops, (), *counts(value), ()))


def _given(array: Any, origins: list[Found], found: Found) -> _Value:
    """A value that enters the program, an origin where it is not finite."""
    mask = bad(array)
    if mask is None:
        return _Value(array, None, False)
    origins.append(found)
    return _Value(array, np.where(mask, np.int32(2 * len(origins)), np.int32(0)), False)


def _mark_used(ids: Sequence[int] | set[int], scope: tuple[str, ...], origins: list[Found]) -> None:
    """Values that leave their own scope otherwise than through the backward pass are of the forward pass."""
    for i in ids:
        found = _origin(origins, i)
        if i % 2 == 0 and found.phase == "backward" and found.scope != scope:
            origins[i // 2 - 1] = found._replace(phase=_phase(found.scope) or "forward")


def _rows(mask: np.ndarray, site: _Site, backward: bool) -> tuple[int, ...]:
    """The rows of the batch that are bad, where the first axis is the batch's for sure."""
    if site.rows is None or mask.shape[:1] != (site.rows,):
        return ()
    # Activations have the batch first, losses are one per example; gradients, statistics may only be as long by chance.
    sure = not backward and (_phase(site.scope) == "loss" or (_phase(site.scope) == "forward" and mask.ndim > 1))
    return _true_rows(mask, site.first_row) if sure or tuple(sorted(mask.shape)) not in site.others else ()


def _true_rows(mask: np.ndarray, first: int = 0) -> tuple[int, ...]:
    return tuple(int(i) + first for i in np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1)))


def _phase(scope: tuple[str, ...]) -> str:
    if not scope:
        return ""
    return scope[0] if scope[0] in ("loss", "update") else "forward"


def _ids(values: Sequence[_Value]) -> set[int]:
    return {int(i) for v in values if v.ids is not None for i in np.unique(v.ids) if i}


def _origin(origins: list[Found], i: int) -> Found:
    return origins[i // 2 - 1]
