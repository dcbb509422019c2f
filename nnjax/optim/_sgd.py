"""Gradient descent."""

from typing import NamedTuple

from jax import Array

from nnjax.optim._rule import Scalars, advance, check_rate, check_state, over_leaves, rate_at, start
from nnjax.types import Optimizer, Params, PyTree, ScalarOrSchedule


class SgdState(NamedTuple):
    """State of `sgd`."""

    count: Array  # type: ignore[assignment]  # (), int32


def sgd(learning_rate: ScalarOrSchedule) -> Optimizer:
    """Gradient descent: a step of size λ against the gradient; stochastic where the gradient is a mini-batch's.

        θ ← θ - λ g

    Args:
      learning_rate: λ ≥ 0: a number, a traced array, or a schedule `step -> rate`.

    Raises:
      ValueError: for a rate out of range; in `update`, for gradients of another structure or shape, with the path.
      TypeError: in `init`, for parameters that are not floating.

    >>> updates, state = optim.sgd(0.1).update({"w": jnp.ones(2)}, optim.sgd(0.1).init({"w": jnp.ones(2)}))
    >>> updates["w"]
    Array([-0.1, -0.1], dtype=float32)

    Source: Cauchy 1847; Robbins and Monro 1951. Equal to `optax.sgd(learning_rate)`.
    """
    learning_rate = check_rate("sgd", learning_rate)

    def rule(scalars: Scalars, g: Array, *_: Array) -> tuple[Array]:
        (rate,) = scalars
        return (-rate * g,)

    def init(params: Params) -> SgdState:
        return SgdState(start("sgd", params))

    def update(grads: PyTree, state: SgdState, params: Params | None = None) -> tuple[PyTree, SgdState]:
        check_state("sgd", state, SgdState)
        given = {} if params is None else {"params": params}
        (updates,) = over_leaves("sgd", rule, [rate_at(learning_rate, state.count)], grads, given)
        return updates, SgdState(advance(state.count))

    return Optimizer(init, update)
