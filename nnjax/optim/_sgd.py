"""Define gradient descent, whose steps are the negative gradient times the learning rate."""

from typing import NamedTuple

from jax import Array

from nnjax.optim._rule import Scalars, from_rule
from nnjax.types import Optimizer, ScalarOrSchedule


class SgdState(NamedTuple):
    """Step count of `sgd`."""

    count: Array  # type: ignore[assignment]  # (), int32


def sgd(learning_rate: ScalarOrSchedule) -> Optimizer:
    """Return gradient descent, known as stochastic gradient descent (SGD) if the gradients are from mini-batches.

        θ ← θ - λ g

    Args:
      learning_rate: λ ≥ 0, as a number, a traced array, or a schedule `step -> rate`.

    Raises:
      ValueError: if the rate is out of range; in `update`, if gradients and params differ in structure or shape.
      TypeError: in `init` and `update`, if parameters or gradients are neither floating-point nor complex; in `update`,
        if the state belongs to another optimizer.

    >>> updates, state = optim.sgd(0.1).update({"w": jnp.ones(2)}, optim.sgd(0.1).init({"w": jnp.ones(2)}))
    >>> updates["w"]
    Array([-0.1, -0.1], dtype=float32)

    Source: Cauchy 1847; Robbins and Monro 1951, doi:10.1214/aoms/1177729586. Equal to `optax.sgd(learning_rate)`.
    """

    def rule(scalars: Scalars, g: Array) -> tuple[Array]:
        (rate,) = scalars
        return (-rate * g,)

    return from_rule(rule, SgdState, learning_rate, [], name="sgd")
