"""Make an optimizer from its update rule, a formula for one array.

This file contains everything that the optimizers share: checks, the step counter, the learning rate, dtypes, and the
loop over the leaves of a tree.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import DTypeLike

from nnjax import checks
from nnjax.types import Optimizer, Params, PyTree, ScalarOrSchedule

Scalar = float | Array
Scalars = Sequence[Any]  # numbers, because schedules are evaluated before the step
Mask = PyTree | Callable[[Params], PyTree] | None
SECOND_MOMENTS = ("nu", "sum_of_squares")  # state fields that hold |g|², which is real even for complex gradients


def from_rule(
    rule: Callable[..., tuple[Array, ...]],
    state_type: type[Any],
    learning_rate: ScalarOrSchedule,
    hyper: Scalars | Callable[[Array], Scalars],
    *,
    name: str,
    fields: Sequence[str] | None = None,
    initial: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    decayed: Callable[[Params], Params] | None = None,
) -> Optimizer:
    """Make an optimizer from its update rule for one array.

    Args:
      rule: `(scalars, gradient, *moments) -> (update, *moments)`, where `scalars` is the learning rate followed by
        `hyper`.
      state_type: NamedTuple of the state: `count`, then one field per moment, in the order of the rule.
      learning_rate: λ ≥ 0, as a number, a traced array, or a schedule, which maps the number of steps taken to a rate.
      hyper: the other hyper-parameters, or a function that returns them for step t = 1, 2, …. Hyper-parameters may be
        schedules, which receive the number of steps already taken.
      name: name of the optimizer, for error messages.
      fields: fields of the state that the rule reads and writes; None means all. Other fields stay unchanged.
      initial: initial value of the second moment. The other moments start at 0.
      mu_dtype: dtype in which the other moments are stored; None means the dtype of the parameters.
      decayed: the function that `decay_mask` returns; None if the rule has no weight decay. A rule with weight decay
        receives the parameter after the moments, and its `update` requires `params`.
    """
    learning_rate = number_or_schedule(name, "learning_rate", learning_rate)

    moments = state_type._fields[1:] if fields is None else tuple(fields)
    if mu_dtype is not None:
        mu_dtype = checked_dtype(name, mu_dtype)

    def start(field: str, p: Array) -> Array:
        dtype: Any = jnp.result_type(p)
        if field in SECOND_MOMENTS:
            dtype = real_dtype(dtype)
        elif mu_dtype is not None:
            dtype = mu_dtype
        value = initial if field in SECOND_MOMENTS else 0
        return jnp.full_like(p, jnp.asarray(value, dtype), dtype)

    def init(params: Params) -> Any:
        check_inexact(name, "parameters", params)
        values = {field: jax.tree.map(partial(start, field), params) for field in moments}
        return state_type(count=jnp.zeros((), jnp.int32), **values)

    def update(grads: PyTree, state: Any, params: Params | None = None) -> tuple[PyTree, Any]:
        if not isinstance(state, state_type):
            raise TypeError(
                f"{name}: expected {state_type.__name__}, got {type(state).__name__}, the state of another optimizer; "
                f"make the state with {name}(…).init(params)"
            )
        trees = {field: getattr(state, field) for field in moments}
        if decayed is not None:
            trees["params"] = decayed(require_params(name, params))
        elif params is not None:
            check_like_gradients(name, "params", params, grads)
        t = optax.safe_increment(state.count)
        scalars = [learning_rate, *(hyper(t) if callable(hyper) else hyper)]
        scalars = [scheduled(name, scalar, state.count) if callable(scalar) else scalar for scalar in scalars]
        updates, *new = map_leaves(name, rule, scalars, grads, trees)
        return updates, state._replace(count=t, **dict(zip(moments, new, strict=True)))

    return optax.with_extra_args_support(Optimizer(init, update))


def number_or_schedule(name: str, key: str, value: ScalarOrSchedule) -> ScalarOrSchedule:
    """Return a learning rate or weight decay after checking that it is at least 0; schedules are not checked."""
    return value if callable(value) else checks.in_range(name, key, value, "[0, inf)")


def scheduled(name: str, schedule: Callable[[Array], Any], count: Array) -> Any:
    """Return the schedule's value after `count` steps; raise TypeError unless it is one real number."""
    try:
        value = schedule(count)
        dtype = _dtype(value)
        real = dtype is not None and jnp.issubdtype(dtype, np.number) and dtype.kind != "c"
        if not real or getattr(value, "shape", ()) != ():
            raise TypeError(f"it returned {value!r}")
    except TypeError as error:
        raise TypeError(
            f"{name}: a schedule must map the number of steps taken, a traced array, to one number; {schedule!r} does "
            f"not: {error}"
        ) from error
    return value


def in_ranges(name: str, interval: str, hyper: dict[str, Scalar]) -> list[Scalar]:
    """Check that the hyper-parameters of the optimizer `name` are in the interval, and return their values."""
    return [checks.in_range(name, key, value, interval) for key, value in hyper.items()]


def real_dtype(dtype: DTypeLike) -> Any:
    """Return the dtype of |g| for g of this dtype: float32 for complex64, bfloat16 for bfloat16."""
    return jnp.real(jnp.zeros((), dtype)).dtype


def squared(g: Array) -> Array:
    """Return |g|², which has a real dtype even for complex g."""
    return g.real**2 + g.imag**2 if jnp.iscomplexobj(g) else g**2


def power(base: Scalar, t: Array) -> Array:
    """Return base^t in JAX's default float dtype, because bfloat16 would round 0.999 to 1."""
    return jnp.asarray(base, float) ** jnp.asarray(t, float)


def decay_mask(name: str, mask: Mask) -> Callable[[Params], Params]:
    """Return a function that sets parameters to zero if they are excluded from weight decay.

    Args:
      name: name of the optimizer, for error messages.
      mask: tree of booleans, True for parameters that decay, with the same structure as the parameters or a prefix of
        it; a function of the parameters that returns such a tree; or None if all parameters decay.
    """

    def decayed(params: Params) -> Params:
        if mask is None:
            return params
        try:
            tree = mask(params) if callable(mask) else mask
            return jax.tree.map(keep, tree, params)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name}: mask must be a tree of booleans with the same structure as the parameters or a prefix of it, "
                f"or a function of the parameters that returns such a tree, got {mask!r}: {error}"
            ) from error

    def keep(decays: Any, p: Params) -> Params:
        if _dtype(decays) != np.bool_ or getattr(decays, "shape", ()) != ():
            raise TypeError(f"{decays!r} is not a boolean")
        return p if decays else jax.tree.map(jnp.zeros_like, p)

    return decayed


def root_above(name: str, offsets: Sequence[Scalar], remedy: str) -> Callable[[Array], Array]:
    """Return the square-root function to apply to a sum of squares plus the hyper-parameters `offsets`.

    This is `jnp.sqrt` if an offset may be above 0. If all are 0, the returned function has the same values, but
    differentiating it raises an error that names the remedy. Otherwise all gradients would silently become NaN, because
    the slope of the root at 0 is infinite.
    """
    if any(checks.is_traced(offset) or float(offset) > 0 for offset in offsets):
        return jnp.sqrt
    return partial(
        _root,
        f"{name}: differentiating through the update needs {remedy}; otherwise the square root has an infinite slope "
        "where squared gradients are 0, as for an input that is always 0, and all gradients would be NaN",
    )


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _root(message: str, x: Array) -> Array:
    return jnp.sqrt(x)


@_root.defjvp
def _refuse(message: str, primals: Any, tangents: Any) -> Any:
    raise ValueError(message)


def map_leaves(
    name: str, rule: Callable[..., tuple[Array, ...]], scalars: Scalars, grads: PyTree, trees: dict[str, PyTree]
) -> tuple[PyTree, ...]:
    """Apply `rule(scalars, gradient, *leaves)` to every gradient leaf and the matching leaves of the other trees.

    Arithmetic uses the widest dtype of the leaves, or float32 if that is wider, because 1 - 0.999 is 0 in bfloat16.
    Scalars that are arrays are cast to that dtype, and each result is cast back to the dtype of its leaf.

    Args:
      name: name of the optimizer, for error messages.
      rule: returns the update and the new values of the moments.
      scalars: learning rate and other hyper-parameters.
      grads: gradients.
      trees: moments by name, followed by the parameters if the rule reads them.

    Returns:
      One tree for each result of the rule.

    Raises:
      ValueError: if a tree and the gradients differ in structure or in the shape of a leaf; the message gives its path.
      TypeError: if a gradient is an integer, or if only one of a gradient and the matching leaf is complex.
    """
    check_inexact(name, "gradients", grads)
    for key, tree in trees.items():
        check_like_gradients(name, key, tree, grads)
    gradients, treedef = jax.tree.flatten(grads)
    if not gradients:  # no parameters: return an empty tree for each result of the rule
        zero = jnp.zeros(())
        return (grads,) * len(rule([zero] * len(scalars), zero, *[zero] * len(trees)))
    results = []
    for row in zip(gradients, *map(jax.tree.leaves, trees.values()), strict=True):
        leaves = [jnp.asarray(leaf) for leaf in row]
        with jax.numpy_dtype_promotion("standard"):  # lets real moments multiply complex gradients
            dtype = reduce(jnp.promote_types, (a.dtype for a in leaves if a.dtype.itemsize > 1), jnp.dtype(jnp.float32))
            real = real_dtype(dtype)
            cast = [s if type(s) is float else jnp.asarray(s, real) for s in scalars]  # np.float64 would promote leaves
            result = rule(cast, *(a.astype(dtype if jnp.iscomplexobj(a) else real) for a in leaves))
        results.append([array.astype(leaf.dtype) for array, leaf in zip(result, leaves, strict=False)])
    return tuple(jax.tree.unflatten(treedef, column) for column in zip(*results, strict=True))


def check_like_gradients(name: str, key: str, tree: PyTree, grads: PyTree) -> None:
    """Raise unless the tree `key` has the structure and shapes of the gradients, and is complex where they are."""
    check_inexact(name, "gradients", grads)
    gradients, leaves = (jax.tree_util.tree_leaves_with_path(t) for t in (grads, tree))
    got: Any = jax.tree.structure(grads)  # mypy does not know the type
    expected = jax.tree.structure(tree)
    if got != expected:
        ours, theirs = ({checks.path_name(path) for path, _ in pairs} for pairs in (gradients, leaves))
        missing = [f"gradients lack {path}" for path in sorted(theirs - ours)]
        missing += [f"{key} lacks {path}" for path in sorted(ours - theirs)]
        raise ValueError(
            f"{name}: gradients and {key} must have the same structure: "
            f"{'; '.join(missing) or f'got {got}, expected {expected}'}"
        )
    for (path, g), (_, leaf) in zip(gradients, leaves, strict=True):
        if jnp.shape(g) != jnp.shape(leaf):
            place = checks.path_name(path)
            raise ValueError(
                f"{name}: gradient at {place} has shape {jnp.shape(g)}, but {key} has shape {jnp.shape(leaf)}"
            )
        if key not in SECOND_MOMENTS and jnp.iscomplexobj(g) != jnp.iscomplexobj(leaf):
            place = checks.path_name(path)
            raise TypeError(
                f"{name}: gradient at {place} is {jnp.result_type(g)}, {key} is {jnp.result_type(leaf)}; "
                "both must be real or both complex"
            )


def require_params(name: str, params: Params | None) -> Params:
    """Return the parameters, or raise if they were not passed to `update`."""
    if params is None:
        raise ValueError(f"{name}: the update needs the parameters; call update(grads, state, params)")
    return params


def check_inexact(name: str, role: str, tree: PyTree) -> None:
    """Raise TypeError unless all leaves are floating-point or complex; integers would be rounded at every step."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = _dtype(leaf)
        if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f"{name}: {role} must be floating-point or complex, got {dtype or type(leaf).__name__} at "
                f"{checks.path_name(path)}; keep integers in the network's state, or "
                "freeze them with optax.selective_transform"
            )


def _dtype(leaf: Any) -> Any:
    """Return the dtype of an array or Python number, or None for anything else."""
    return jnp.result_type(leaf) if isinstance(leaf, (int, float, complex)) else getattr(leaf, "dtype", None)


def checked_dtype(name: str, dtype: DTypeLike) -> Any:
    """Return the dtype in which JAX stores the moments, such as float32 for float64 if x64 is disabled."""
    try:
        result = jax.dtypes.canonicalize_dtype(dtype)
    except TypeError as error:
        raise TypeError(f"{name}: expected a dtype such as jnp.bfloat16 for the moments, got {dtype!r}") from error
    if not jnp.issubdtype(result, jnp.inexact):
        raise TypeError(
            f"{name}: the dtype of moments must be floating-point or complex, got {result}; "
            "pass, for example, jnp.bfloat16"
        )
    return result
