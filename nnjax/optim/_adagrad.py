"""Adagrad."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from nnjax import checks
from nnjax.optim._rule import (
    Scalar,
    Scalars,
    advance,
    check_rate,
    check_state,
    full,
    over_leaves,
    rate_at,
    root_above,
)
from nnjax.types import Optimizer, Params, PyTree, ScalarOrSchedule


class AdagradState(NamedTuple):
    """State of `adagrad`."""

    count: Array  # type: ignore[assignment]  # (), int32
    sum_of_squares: Params  # like the parameters


def adagrad(learning_rate: ScalarOrSchedule, initial_accumulator_value: Scalar = 0.1, eps: Scalar = 1e-7) -> Optimizer:
    """Adagrad: each parameter's step is divided by the size of all its gradients so far.

        s ← s + g²
        θ ← θ - λ g / √(s + ε)            (no step where s = 0)

    Args:
      learning_rate: λ ≥ 0: a number, a traced array, or a schedule `step -> rate`.
      initial_accumulator_value: s at first, ≥ 0 (torch: 0).
      eps: ε ≥ 0, inside the root (torch: 1e-10 outside).

    Raises:
      ValueError: for hyper-parameters out of range; in `update`, for gradients of another structure or shape.
      TypeError: in `init`, for parameters that are not floating.

    >>> optimizer = optim.adagrad(0.1, initial_accumulator_value=0.0)
    >>> updates, state = optimizer.update(jnp.array([1.0, -100.0]), optimizer.init(jnp.ones(2)))
    >>> [f"{u:.3f}" for u in updates]
    ['-0.100', '0.100']

    Source: Duchi, Hazan and Singer 2011. Equal to `optax.adagrad`.
    """
    learning_rate = check_rate("adagrad", learning_rate)
    initial = checks.in_range("adagrad", "initial_accumulator_value", initial_accumulator_value, "[0, inf)")
    eps = checks.in_range("adagrad", "eps", eps, "[0, inf)")
    root = root_above("adagrad", [initial, eps], "eps > 0 or initial_accumulator_value > 0")

    def rule(scalars: Scalars, g: Array, s: Array) -> tuple[Array, Array]:
        rate, eps = scalars
        s = s + g**2
        return jnp.where(s > 0, -rate * g / root(s + eps), jnp.zeros_like(g)), s

    def init(params: Params) -> AdagradState:
        return AdagradState(jnp.zeros((), jnp.int32), full("adagrad", params, initial))

    def update(grads: PyTree, state: AdagradState, params: Params | None = None) -> tuple[PyTree, AdagradState]:
        check_state("adagrad", state, AdagradState)
        scalars = [rate_at(learning_rate, state.count), eps]
        updates, squares = over_leaves("adagrad", rule, scalars, grads, {"sum_of_squares": state.sum_of_squares})
        return updates, AdagradState(advance(state.count), squares)

    return Optimizer(init, update)
