"""Locate the origin of a NaN or infinity by running the program again, one primitive at a time."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.data._transfers import allow_transfers
from nnjax.debug._origin import Loop, NonfiniteOrigin
from nnjax.types import PyTree

# Primitives that only call another program with the same inputs and outputs
CALLS = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat2"}
JAX_SCOPES = {"rematted_computation"}  # scopes that JAX adds
MAX_SEPARATE = 8  # maximum number of origins in a primitive's inputs that are tested one by one


@allow_transfers
def first_nonfinite(
    function: Callable[..., PyTree], *args: PyTree, names: Sequence[str] | None = None
) -> NonfiniteOrigin | None:
    """Find the primitive, argument or constant that is the origin of the first NaN or infinity that reaches an output.

    The program of `function(*args)` runs one primitive at a time, including its loops and inner programs. Each
    non-finite element carries its origin. If replacing a primitive's input elements of one origin by finite values
    makes the result finite, the result inherits that origin; otherwise the primitive is itself an origin. Values that
    reach no output are ignored, as in `jnp.where(x > 0, jnp.log(x), 0)`. Infinities written into the program (masks,
    padding) are also ignored, unless they cause a NaN or are the only non-finite values in the outputs.

    Non-finite values that arise only in the compiled program (fusion with 16-bit floats) are not found. The phase
    "backward" includes forward values that affect the outputs only through the backward pass, such as 1 / (2 √x) at 0.

    Args:
      function: a function of arrays, such as `Run.step`.
      args: its arguments, which must be concrete values, not tracers. The batch is the argument named "batch", or the
        last argument if none has this name. The first axis of its arrays numbers the examples, which are called rows.
      names: one name for each argument, such as ("state", "batch").

    Returns:
      The origin that comes first in the program, or None if all outputs are finite.

    Raises:
      TypeError: if `function` does not accept the arguments, if they are not arrays or are tracers, as inside `jit` or
        `vmap`, or if names is not a list of strings.
      ValueError: if the number of names differs from the number of arguments.

    >>> from nnjax.debug import first_nonfinite
    >>> net = nn.serial(nn.dense(4), jnp.exp, nn.dense(2))
    >>> run = train.Run(net, losses.squared_error, optim.adam(1e-3), batch_size=3)
    >>> batch = data.Data(jnp.array([[1.0], [1e4], [0.0]]), jnp.zeros((3, 2)))
    >>> ts = run.init(jax.random.key(0), batch)
    >>> print(first_nonfinite(run.step, ts, batch, names=("state", "batch")))
    layer 1 exp (forward), primitive exp, rows 1 of the batch: ... inf in shape (3, 4), inputs in ...
    """
    checks.function_of("first_nonfinite", "function", function, *(f"args[{i}]" for i in range(len(args))))
    checks.arrays("first_nonfinite", "args", args)
    if names is not None and not (isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)):
        raise TypeError(f"first_nonfinite: names must be a list of strings, one for each argument, got {names!r:.80}")
    names = [f"args[{i}]" for i in range(len(args))] if names is None else list(names)
    if len(names) != len(args):
        raise ValueError(
            f"first_nonfinite: got {len(names)} names for {len(args)} arguments: {names}; "
            "pass one name for each argument"
        )
    if any(checks.is_traced(leaf) for leaf in jax.tree.leaves(args)):
        raise TypeError("first_nonfinite: needs concrete values; call it outside jit, vmap and grad")
    batch = names.index("batch") if "batch" in names else len(args) - 1
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(args[batch:][:1]) if jnp.ndim(leaf)}
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves((*args[:batch], *args[batch + 1 :]))]
    # `nn.repeat` stacks parameters along a new first axis; without this axis, they have the shapes of a single block
    other_shapes = frozenset(tuple(sorted(shape[skip:])) for shape in shapes for skip in (0, 1))
    site = _Site((), (), 0, lengths.pop() if len(lengths) == 1 else None, other_shapes)
    program = jax.make_jaxpr(function)(*args)
    origins: list[NonfiniteOrigin] = []
    values = []
    for i, (name, arg) in enumerate(zip(names, args, strict=True)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(arg):
            array = jnp.asarray(leaf)
            mask = _nonfinite_mask(array)
            rows = () if mask is None or not mask.ndim else _true_rows(mask)
            origin = NonfiniteOrigin("argument", name + jax.tree_util.keystr(path), rows=rows)
            values.append(_source(array, origins, origin)._replace(of_batch=i == batch))
    with jax.debug_nans(False), jax.debug_infs(False):
        outputs = _run(program, values, site, origins)
    ids = _ids(outputs)
    _set_forward(ids, ("outputs",), origins)
    reached = (_origin(origins, i) for i in sorted(ids))
    return min(reached, key=lambda origin: origin.kind == "constant", default=None)


# Each non-finite element carries the id of its origin, origins[id // 2 - 1]. Ids increase in program order. Odd ids
# mark values that passed through the backward pass. Finite elements have the id 0.


class _Value(NamedTuple):
    array: Any
    ids: np.ndarray | None  # int32, with the shape of the array; None if all elements are finite
    of_batch: bool  # True if the value depends on the batch


class _Site(NamedTuple):
    """The context of an equation: its scopes, its loops, and the rows of the batch."""

    stack: tuple[Any, ...]  # scopes and transforms
    loops: tuple[Loop, ...]
    first_row: int  # index of the first row of the batch or micro-batch
    rows: int | None  # number of rows of the batch or micro-batch
    other_shapes: frozenset[tuple[int, ...]]  # shapes of everything except the batch, each with its axes sorted

    @property
    def scope(self) -> tuple[str, ...]:
        scopes = [entry.name for entry in self.stack if type(entry).__name__ == "Scope"]
        names = [name for name in scopes if name not in JAX_SCOPES]
        return tuple(name for i, name in enumerate(names) if i == 0 or name != names[i - 1])  # remat repeats names

    def is_inside(self, transform: str) -> bool:
        return any(type(entry).__name__ == "Transform" and entry.name == transform for entry in self.stack)


def _run(program: Any, args: Sequence[_Value], site: _Site, origins: list[NonfiniteOrigin]) -> list[_Value]:
    """Run a jaxpr (open or closed) and return its outputs."""
    from jax.extend.core import Literal  # imported here because it loads Pallas, which is slow

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


def _equation(equation: Any, inputs: list[_Value], site: _Site, origins: list[NonfiniteOrigin]) -> list[_Value]:
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


def _while(params: Any, inputs: list[_Value], site: _Site, origins: list[NonfiniteOrigin]) -> list[_Value]:
    n_cond, n_body = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    consts, carry, i = inputs[n_cond:n_body], inputs[n_body:], 0
    while _run(params["cond_jaxpr"], inputs[:n_cond] + carry, site, origins)[0].array:
        inner = site._replace(loops=(*site.loops, Loop("iteration", i, None, len(site.scope))))
        carry, i = _run(params["body_jaxpr"], consts + carry, inner, origins), i + 1
    return carry


def _scan(params: Any, inputs: list[_Value], site: _Site, origins: list[NonfiniteOrigin]) -> list[_Value]:
    if "ft_in" in params:  # since JAX 0.11
        n_consts, n_carry, _ = map(len, params["ft_in"].unpack())
    else:
        n_consts, n_carry = params["num_consts"], params["num_carry"]
    n, first_x = params["length"], n_consts + n_carry
    consts, carry, xs = inputs[:n_consts], inputs[n_consts:first_x], inputs[first_x:]
    # Micro-batches are made by reshaping the batch to (number, rows); in a layer, arrays may have this shape by chance
    shapes = [x.array.shape[:2] for x in xs if x.of_batch and x.array.ndim > 1]
    in_layer = any(re.match(r"\d+_", name) for name in site.scope)
    kind = "block" if re.match(r"\d+_repeat\(", (site.scope or ("",))[-1]) else "iteration"
    rows, stride = site.rows, 0
    if site.rows is not None and not in_layer and any(number * size == site.rows for number, size in shapes):
        kind, rows, stride = "micro-batch", site.rows // n, site.rows // n
    results: list[list[_Value]] = []
    for i in range(n):
        at = n - 1 - i if params["reverse"] else i
        loop = Loop(kind, at, n, len(site.scope))
        inner = site._replace(loops=(*site.loops, loop), first_row=site.first_row + at * stride, rows=rows)
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
    array = jnp.stack(arrays) if keys else jnp.asarray(np.stack(arrays))  # np.stack, unlike jnp.stack, compiles nothing
    return _Value(array, np.stack(ids) if any(v.ids is not None for v in values) else None, values[0].of_batch)


def _primitive(equation: Any, inputs: list[_Value], site: _Site, origins: list[NonfiniteOrigin]) -> list[_Value]:
    """Run one primitive and return its outputs; append it to `origins` if it is an origin."""
    backward = site.is_inside("transpose")
    of_batch = any(v.of_batch for v in inputs)
    input_ids = sorted(_ids(inputs), key=lambda i: (_origin(origins, i).kind == "constant", i))
    if not backward:
        _set_forward(input_ids, site.scope, origins)
    arrays = _bind(equation, [v.array for v in inputs])
    masks = [_nonfinite_mask(array) for array in arrays]
    if all(mask is None for mask in masks):
        return [_Value(array, None, of_batch) for array in arrays]

    filled = [np.zeros(np.shape(a), bool) if mask is None else mask for a, mask in zip(arrays, masks, strict=True)]
    ids = _inherited_ids(equation, inputs, filled, input_ids)
    # Infinities written into the program are ignored, but if they cause a NaN (∞ - ∞), its origin is this primitive
    infinities = [i for i in input_ids if _origin(origins, i).kind == "constant" and not _origin(origins, i).nan]
    for array, mask, id_ in zip(arrays, filled, ids, strict=True):
        if mask.any():
            id_[np.isin(id_, infinities) & np.isnan(np.asarray(array))] = 0
    new = [mask & (id_ == 0) for mask, id_ in zip(filled, ids, strict=True)]
    if any(mask.any() for mask in new):
        array, mask = next((np.asarray(a), m) for a, m in zip(arrays, new, strict=True) if m.any())
        array = np.where(mask, array, array.dtype.type(0))
        # Assume that only the backward pass uses a value computed together with its derivative; if the forward pass
        # uses it, too, `_set_forward` corrects the phase
        origin = NonfiniteOrigin(
            "primitive",
            equation.primitive.name,
            scope=site.scope,
            phase="backward" if backward or site.is_inside("jvp") else _phase(site.scope),
            loops=site.loops,
            rows=_rows(mask, site, backward) if of_batch else (),
            inputs=tuple(_value_range(v.array) for v in inputs if _is_floating(v.array) and v.array.size),
        )
        new_id = _add_origin(origins, origin, array)
        ids = [np.where(mask, new_id, id_) for mask, id_ in zip(new, ids, strict=True)]
    if backward:
        ids = [np.where(id_ > 0, id_ | 1, 0) for id_ in ids]
    return [
        _Value(array, id_ if mask.any() else None, of_batch)
        for array, mask, id_ in zip(arrays, filled, ids, strict=True)
    ]


def _inherited_ids(
    equation: Any, inputs: list[_Value], masks: list[np.ndarray], input_ids: list[int]
) -> list[np.ndarray]:
    """Return, for each output, the ids that its non-finite elements inherit from the inputs.

    An element inherits an id if it becomes finite when the inputs with that id are replaced by finite numbers. If it
    stays non-finite, its id is 0.
    """
    ids = [np.zeros(mask.shape, np.int32) for mask in masks]
    groups = [[i] for i in input_ids[:MAX_SEPARATE]] if len(input_ids) > 1 else []
    # Test the ids one by one, then together, because NaN + NaN becomes finite only if both inputs are replaced
    for group in [*groups, input_ids] if input_ids else []:
        remaining = masks
        for finite in (1.0, 0.5):  # every common function, such as log, 1/x or atanh, is finite at one of these
            replaced = [_replace(v, group, finite) for v in inputs]
            again = [_nonfinite_mask(array) for array in _bind(equation, replaced)]
            remaining = [r & (False if a is None else a) for r, a in zip(remaining, again, strict=True)]
        for id_, mask, remains in zip(ids, masks, remaining, strict=True):
            id_[mask & ~remains & (id_ == 0)] = group[0]
    return ids


def _replace(value: _Value, ids: list[int], finite: float) -> Any:
    if value.ids is None or not np.isin(value.ids, ids).any():
        return value.array
    array = np.asarray(value.array)
    return jnp.asarray(np.where(np.isin(value.ids, ids), array.dtype.type(finite), array))


def _bind(equation: Any, arrays: list[Any]) -> list[Any]:
    with equation.ctx.manager:
        result = equation.primitive.bind(*arrays, **equation.primitive.get_bind_params(equation.params))
    return list(result) if equation.primitive.multiple_results else [result]


def _constant(value: Any, site: _Site, primitive: str, origins: list[NonfiniteOrigin]) -> _Value:
    phase = "backward" if site.is_inside("transpose") else _phase(site.scope)
    return _source(value, origins, NonfiniteOrigin("constant", primitive, site.scope, phase, site.loops))


def _source(array: Any, origins: list[NonfiniteOrigin], origin: NonfiniteOrigin) -> _Value:
    """Return an argument or constant of the program; if it contains non-finite values, add its origin to `origins`."""
    mask = _nonfinite_mask(array)
    if mask is None:
        return _Value(array, None, False)
    return _Value(array, np.where(mask, np.int32(_add_origin(origins, origin, array)), np.int32(0)), False)


def _add_origin(origins: list[NonfiniteOrigin], origin: NonfiniteOrigin, array: Any) -> int:
    """Append an origin with the counts and shape of its values, and return its id."""
    values = np.asarray(array)
    nan, inf = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    origins.append(origin._replace(nan=nan, inf=inf, shape=values.shape))
    return 2 * len(origins)


def _set_forward(ids: Sequence[int] | set[int], scope: tuple[str, ...], origins: list[NonfiniteOrigin]) -> None:
    """Correct the phase of origins marked "backward" if the forward pass uses their values outside their scope."""
    for i in ids:
        origin = _origin(origins, i)
        if i % 2 == 0 and origin.phase == "backward" and origin.scope != scope:
            origins[i // 2 - 1] = origin._replace(phase=_phase(origin.scope) or "forward")


def _rows(mask: np.ndarray, site: _Site, backward: bool) -> tuple[int, ...]:
    """Return the indices of the batch rows with non-finite elements, or () if the first axis may not be the batch."""
    if site.rows is None or mask.shape[:1] != (site.rows,):
        return ()
    # In the forward pass and the loss, the first axis is the batch; elsewhere, its length may be equal by chance
    phase = _phase(site.scope)
    sure = not backward and (phase == "loss" or (phase == "forward" and mask.ndim > 1))
    return _true_rows(mask, site.first_row) if sure or tuple(sorted(mask.shape)) not in site.other_shapes else ()


def _true_rows(mask: np.ndarray, first: int = 0) -> tuple[int, ...]:
    return tuple(int(i) + first for i in np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1)))


def _phase(scope: tuple[str, ...]) -> str:
    if not scope:
        return ""
    return scope[0] if scope[0] in ("loss", "update") else "forward"


def _ids(values: Sequence[_Value]) -> set[int]:
    return {int(i) for v in values if v.ids is not None for i in np.unique(v.ids) if i}


def _origin(origins: list[NonfiniteOrigin], i: int) -> NonfiniteOrigin:
    return origins[i // 2 - 1]


def _is_floating(array: Any) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.inexact))


def _nonfinite_mask(array: Any) -> np.ndarray | None:
    """Return a mask of the non-finite elements, or None if all are finite."""
    if not _is_floating(array):
        return None
    mask = ~np.isfinite(np.asarray(array))
    return np.asarray(mask) if mask.any() else None


def _value_range(array: Any) -> tuple[float, float]:
    """Return the smallest and largest value (for complex numbers, the modulus), ignoring NaN."""
    values = np.asarray(array)
    values = np.abs(values) if np.iscomplexobj(values) else values.astype(np.float64)
    values = values[~np.isnan(values)]
    return (float(values.min()), float(values.max())) if values.size else (float("nan"), float("nan"))
