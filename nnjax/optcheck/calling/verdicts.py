"""Judge a way to call an optimizer by its updates on random inputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.optcheck.calling.adapter import SCALE, Adapter, difference, example_tree
from nnjax.optcheck.calling.hidden_state import hidden_state_error
from nnjax.optcheck.trace.deadline import TimeLimitError
from nnjax.types import PyTree


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


def trial_verdict(adapter: Adapter) -> str:
    """Return "sure" if updates depend on the gradients but differ from them, "impossible" after errors, or "unsure".

    Raises:
      NotAnOptimizerError: if equal inputs give different updates, so the function keeps state outside its arguments.
    """
    try:
        first, again = _first_updates(adapter, (0, 1)), _first_updates(adapter, (0, 1))
        other = _first_updates(adapter, (0, 2))
    except TimeLimitError:
        raise
    except Exception:
        return "impossible"
    if not _equal(first, again) and adapter.kind != "object":
        raise hidden_state_error(adapter.name)
    params = jax.tree.map(lambda leaf: SCALE * leaf, example_tree(np.array, 0, ndim=adapter.ndim))
    grads = example_tree(np.array, 1, ndim=adapter.ndim)
    if not has_shapes(first[0], params):
        return "unsure"
    new = jax.tree.map(lambda p, u: p + np.asarray(u), params, first[0])
    nearer_to_grads = min(tree_size(difference(new, grads)), tree_size(difference(first[0], grads))) < 0.5 * tree_size(
        first[0]
    )
    return "unsure" if nearer_to_grads or _equal(first, other) else "sure"


def is_update(adapter: Adapter) -> bool:
    """Return True unless the first updates are near the parameters or the gradients.

    Errors and updates with other shapes are reported by the comparison.
    """
    params = jax.tree.map(lambda leaf: SCALE * leaf, example_tree(np.array, 0, ndim=adapter.ndim))
    grads = example_tree(np.array, 1, ndim=adapter.ndim)
    try:
        updates = _first_updates(adapter, (0, 1))[0]
    except TimeLimitError:
        raise
    except Exception:
        return True
    if not has_shapes(updates, params):
        return True
    distance = min(tree_size(difference(updates, params)), tree_size(difference(updates, grads)))
    return not distance < 0.5 * tree_size(updates)


def returns_parameters(adapter: Adapter) -> bool:
    """Return True if the updates are near the parameters, so that they are new parameters.

    Zero gradients are tried too, because the first step of a wrong rule may be larger than the parameters. Errors are
    reported by the comparison.
    """
    params = jax.tree.map(lambda leaf: SCALE * leaf, example_tree(adapter.array, 0, ndim=adapter.ndim))
    grads = example_tree(adapter.array, 1, ndim=adapter.ndim)
    for scale in (1, 0):
        scaled = jax.tree.map(lambda leaf: scale * leaf, grads)  # noqa: B023
        try:
            with np.errstate(all="ignore"):
                updates, _ = adapter.step(adapter.init(params), params, scaled)
            near = tree_size(difference(updates, params)) < 0.5 * tree_size(updates)
        except TimeLimitError:
            raise
        except Exception:
            return False
        if near and has_shapes(updates, params):
            return True
    return False


def repeats(adapter: Adapter) -> bool:
    """Return True if equal inputs give equal updates in two runs, or if the optimizer fails."""
    try:
        return _equal(_first_updates(adapter, (0, 1)), _first_updates(adapter, (0, 1)))
    except TimeLimitError:
        raise
    except Exception:
        return True


def takes_steps(adapter: Adapter) -> bool:
    """Return True if two steps with random inputs raise no exception."""
    try:
        _first_updates(adapter, (0, 1))
    except TimeLimitError:
        raise
    except Exception:
        return False
    return True


def depends_on_gradients(adapter: Adapter) -> bool:
    """Return True if different gradients change the first update more than different parameters do."""
    first, grads, params = (_first_updates(adapter, seeds)[0] for seeds in ((0, 1), (0, 2), (3, 1)))
    return tree_size(difference(params, first)) < tree_size(difference(grads, first))


def is_finite(adapter: Adapter) -> bool:
    """Return True if the first updates contain no NaN and no infinity."""
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(_first_updates(adapter, (0, 1))))


def works_under_jit(adapter: Adapter, *, moves: bool = False) -> bool:
    """Return True if two steps under jit give the same updates as two eager steps, not all zero if `moves`."""

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
    if moves and not any(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(jitted)):
        return False
    pairs = zip(jax.tree.leaves(jitted), jax.tree.leaves(eager), strict=True)
    return all(np.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True) for a, b in pairs)


def tree_size(tree: PyTree) -> float:
    """Return the Euclidean norm of a tree, in which NaN counts as 0."""
    return float(np.sqrt(sum(np.nansum(np.asarray(leaf, np.float64) ** 2) for leaf in jax.tree.leaves(tree))))


def has_shapes(tree: PyTree, like: PyTree) -> bool:
    """Return True if two trees have the same structure and shapes."""
    leaves, others = jax.tree.leaves(tree), jax.tree.leaves(like)
    same = str(jax.tree.structure(tree)) == str(jax.tree.structure(like))
    return same and all(np.shape(a) == np.shape(b) for a, b in zip(leaves, others, strict=True))


def _equal(a: PyTree, b: PyTree) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(np.asarray(x), np.asarray(y), equal_nan=True) for x, y in pairs)
