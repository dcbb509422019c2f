"""Define Adagrad, which divides each gradient by the root of the sum of all squared gradients so far."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from nnjax.optim._rule import Scalar, Scalars, from_rule, in_ranges, root_above, squared
from nnjax.types import Optimizer, Params, ScalarOrSchedule


class AdagradState(NamedTuple):
    """Step count and sum of squared gradients of `adagrad`."""

    count: Array  # type: ignore[assignment]  # (), int32
    sum_of_squares: Params  # sum of |g|², with the same structure as the parameters; its dtype is real


def adagrad(learning_rate: ScalarOrSchedule, initial_accumulator_value: Scalar = 0.1, eps: Scalar = 1e-7) -> Optimizer:
    """Return Adagrad, which divides each gradient by the root of the sum of all squared gradients so far.

        s ← s + |g|²
        θ ← θ - λ g / √(s + ε)            (no step if s = 0)

    Args:
      learning_rate: λ ≥ 0, as a number, a traced array, or a schedule `step -> rate`.
      initial_accumulator_value: initial value of s, at least 0 (torch's default is 0).
      eps: ε ≥ 0, added inside the root (torch adds 1e-10 outside the root).

    Raises:
      ValueError: if a hyper-parameter is out of range; in `update`, if gradients do not match the state in structure or
        shape, or if the update is differentiated while ε and the initial value are 0.
      TypeError: in `init` and `update`, if parameters or gradients are neither floating-point nor complex; in `update`,
        if the state belongs to another optimizer.

    >>> optimizer = optim.adagrad(0.1, initial_accumulator_value=0.0)
    >>> updates, state = optimizer.update(jnp.array([1.0, -100.0]), optimizer.init(jnp.ones(2)))
    >>> [f"{u:.3f}" for u in updates]
    ['-0.100', '0.100']

    Source: Duchi, Hazan and Singer 2011, JMLR 12. Equal to `optax.adagrad`.
    """
    values = {"initial_accumulator_value": initial_accumulator_value, "eps": eps}
    initial, eps = in_ranges("adagrad", "[0, inf)", values)
    root = root_above("adagrad", [initial, eps], "eps > 0 or initial_accumulator_value > 0")

    def rule(scalars: Scalars, g: Array, s: Array) -> tuple[Array, Array]:
        rate, eps = scalars
        s = s + squared(g)
        return jnp.where(s > 0, -rate * g / root(s + eps), jnp.zeros_like(g)), s

    return from_rule(rule, AdagradState, learning_rate, [eps], name="adagrad", initial=initial)
