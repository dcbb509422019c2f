"""What the optimizers share: an update rule is written for one array and runs over the leaves of a tree."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from nnjax import checks
from nnjax.types import Params, PyTree, ScalarOrSchedule

Scalar = float | Array
Scalars = Sequence[Scalar]  # hyper-parameters as a rule sees them, in the dtype of its leaf


def check_rate(where: str, learning_rate: ScalarOrSchedule) -> ScalarOrSchedule:
    """A learning rate ≥ 0, or a schedule as it is."""
    if callable(learning_rate):
        return learning_rate
    rate: Scalar = checks.in_range(where, "learning_rate", learning_rate, "[0, inf)")
    return rate


def rate_at(learning_rate: ScalarOrSchedule, count: Array) -> Scalar:
    """The learning rate of this step; a schedule sees the number of steps done before it, as in optax."""
    return learning_rate(count) if callable(learning_rate) else learning_rate


def power(base: Scalar, count: Array) -> Array:
    """base^count in JAX's default float, whatever the parameters' dtype: in bfloat16 .999 would be 1."""
    return jnp.asarray(base, float) ** jnp.asarray(count, float)


def root_above(where: str, floor: Sequence[Scalar], remedy: str) -> Callable[[Array], Array]:
    """The square root of numbers ≥ 0 to which the hyper-parameters of `floor` are added.

    With one of them above 0 it is `jnp.sqrt`. With all of them known to be 0 it has the same values, but whoever
    differentiates it is told the remedy: its slope is infinite at 0, where NaN would come of it without a word.
    """
    if any(checks.is_traced(part) or float(part) > 0 for part in floor):
        return jnp.sqrt
    return partial(
        _root,
        f"{where}: differentiating through the update needs {remedy}; without it the root of squared gradients has no "
        "slope where they are 0, as for an input that is always 0, and all gradients would be NaN",
    )


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _root(message: str, x: Array) -> Array:
    return jnp.sqrt(x)


@_root.defjvp
def _refuse(message: str, primals: Any, tangents: Any) -> Any:
    raise ValueError(message)


def zeros(where: str, params: Params) -> Params:
    """Zeros like the parameters: the start of a moment."""
    return full(where, params, 0.0)


def full(where: str, params: Params, value: Scalar) -> Params:
    """A constant in the shape of the parameters, which are checked to be floating."""
    check_floating(where, params)
    return jax.tree.map(lambda p: jnp.full_like(p, jnp.asarray(value, jnp.result_type(p))), params)


def check_floating(where: str, params: Params) -> None:
    """All parameters are floating."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"{where}: parameters must be floating, got {jnp.result_type(leaf)} at {checks.path_name(path)}; "
                "keep integers in the state, or freeze them with optax.freeze"
            )


def start(where: str, params: Params) -> Array:
    """The counter's start; the parameters are checked to be floating."""
    check_floating(where, params)
    return jnp.zeros((), jnp.int32)


def advance(count: Array) -> Array:
    """count + 1, staying at the largest int32."""
    return optax.safe_increment(count)


def over_leaves(
    where: str, rule: Callable[..., Any], scalars: Scalars, grads: PyTree, trees: dict[str, PyTree]
) -> tuple[PyTree, ...]:
    """`rule(scalars, gradient, *others)` on every leaf of the gradients and of trees of the same form.

    Args:
      where: the optimizer's name, for errors.
      rule: returns the update of a leaf and the new values of its moments.
      scalars: hyper-parameters; arrays among them are cast to the dtype of the arithmetic: that of the leaf, but
        float32 for a leaf of 16 bits, in which 1 - .999 would be 0. The results are cast back.
      grads: gradients.
      trees: moments, and parameters where the rule needs them, by name.

    Returns:
      One tree for each result of the rule.

    Raises:
      ValueError: where a tree differs from the gradients in structure or in the shape of a leaf, with its path.
    """
    paths, treedef = jax.tree_util.tree_flatten_with_path(grads)
    columns = [_column(where, name, tree, paths, treedef) for name, tree in trees.items()]
    if not paths:  # a network without parameters: as many empty trees as the rule has results
        zero = jnp.zeros(())
        return (grads,) * len(rule([zero] * len(scalars), zero, *[zero] * len(trees)))
    results = []
    for (_, gradient), *rest in zip(paths, *columns, strict=True):
        leaves = [jnp.asarray(gradient), *(jnp.asarray(leaf) for leaf in rest)]
        dtype = leaves[0].dtype if leaves[0].dtype.itemsize >= 4 else jnp.dtype(jnp.float32)
        cast = [s if type(s) is float else jnp.asarray(s, dtype) for s in scalars]  # np.float64 would promote
        result = rule(cast, *(leaf.astype(dtype) for leaf in leaves))
        results.append([array.astype(leaf.dtype) for array, leaf in zip(result, leaves, strict=False)])
    return tuple(jax.tree.unflatten(treedef, column) for column in zip(*results, strict=True))


def _column(where: str, name: str, tree: PyTree, grads: list[Any], treedef: Any) -> list[Array]:
    """The leaves of a tree that must have the form of the gradients."""
    if jax.tree.structure(tree) != treedef:
        got = {checks.path_name(path) for path, _ in grads}
        want = {checks.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
        lacks = "; ".join(
            [f"gradients lack {p}" for p in sorted(want - got)] + [f"{name} lacks {p}" for p in sorted(got - want)]
        )
        raise ValueError(
            f"{where}: gradients and {name} must have the same structure: "
            f"{lacks or f'{treedef} against {jax.tree.structure(tree)}'}"
        )
    leaves = jax.tree.leaves(tree)
    for (path, g), leaf in zip(grads, leaves, strict=True):
        if jnp.shape(g) != jnp.shape(leaf):
            raise ValueError(
                f"{where}: gradient at {checks.path_name(path)} has shape {jnp.shape(g)}, {name} has {jnp.shape(leaf)}"
            )
    return leaves


def check_state(where: str, state: Any, kind: type) -> None:
    """The state is this optimizer's own."""
    if not isinstance(state, kind):
        raise TypeError(
            f"{where}: the state is a {type(state).__name__}, of another optimizer; use {where}'s init(params)"
        )


def need_params(where: str, params: Params | None) -> Params:
    """The parameters, which not every optimizer can do without."""
    if params is None:
        raise ValueError(f"{where}: the parameters are needed: update(grads, state, params)")
    return params
