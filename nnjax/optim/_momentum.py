"""Momentum and Nesterov's form of it."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from nnjax import checks
from nnjax.optim._rule import Scalar, Scalars, advance, check_rate, check_state, over_leaves, rate_at, zeros
from nnjax.types import Optimizer, Params, PyTree, ScalarOrSchedule


class MomentumState(NamedTuple):
    """State of `momentum` and `nesterov`."""

    count: Array  # type: ignore[assignment]  # (), int32
    trace: Params  # the velocity, like the parameters


def momentum(learning_rate: ScalarOrSchedule, momentum: Scalar = 0.9, *, moving_average: bool = False) -> Optimizer:
    """Momentum, the heavy ball: steps add up while the gradient keeps its direction.

        v ← μ v + g            or, with moving_average,  v ← μ v + (1 - μ) g
        θ ← θ - λ v

    Args:
      learning_rate: λ ≥ 0: a number, a traced array, or a schedule `step -> rate`. It stands outside the velocity, as
        in optax and torch; Keras has it inside, which differs while the rate changes.
      momentum: μ in [0, 1), the share of the velocity that is kept.
      moving_average: the form of many tutorials, with steps 1 - μ as large.

    Raises:
      ValueError: for hyper-parameters out of range; in `update`, for gradients of another structure or shape.
      TypeError: in `init`, for parameters that are not floating.

    >>> optimizer = optim.momentum(0.1)
    >>> updates, state = optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
    >>> optimizer.update(jnp.ones(2), state)[0]
    Array([-0.19, -0.19], dtype=float32)

    Source: Polyak 1964. Equal to `optax.sgd(learning_rate, momentum)`; with moving_average to
    `optax.chain(optax.ema(momentum, debias=False), optax.scale_by_learning_rate(learning_rate))`.
    """

    def rule(scalars: Scalars, g: Array, v: Array) -> tuple[Array, Array]:
        rate, mu = scalars
        v = mu * v + ((1 - mu) * g if moving_average else g)
        return -rate * v, v

    return _with_velocity("momentum", learning_rate, momentum, rule)


def nesterov(learning_rate: ScalarOrSchedule, momentum: Scalar = 0.9) -> Optimizer:
    """Nesterov's momentum: the gradient counts as if it were taken where the velocity leads.

        v ← μ v + g
        θ ← θ - λ (g + μ v)

    Args:
      learning_rate: λ ≥ 0: a number, a traced array, or a schedule `step -> rate`.
      momentum: μ in [0, 1), the share of the velocity that is kept.

    Raises:
      ValueError: for hyper-parameters out of range; in `update`, for gradients of another structure or shape.
      TypeError: in `init`, for parameters that are not floating.

    >>> optimizer = optim.nesterov(0.1)
    >>> optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))[0]
    Array([-0.19, -0.19], dtype=float32)

    Source: Nesterov 1983, in the form of Sutskever et al. 2013 written for the shifted parameters (Bengio et al.
    2012), as in torch. Equal to `optax.sgd(learning_rate, momentum, nesterov=True)`.
    """

    def rule(scalars: Scalars, g: Array, v: Array) -> tuple[Array, Array]:
        rate, mu = scalars
        v = mu * v + g
        return -rate * (g + mu * v), v

    return _with_velocity("nesterov", learning_rate, momentum, rule)


def _with_velocity(
    where: str, learning_rate: ScalarOrSchedule, momentum: Scalar, rule: Callable[..., tuple[Array, Array]]
) -> Optimizer:
    """The optimizer whose rule maps (rate, μ, gradient, velocity) to (update, velocity)."""
    learning_rate = check_rate(where, learning_rate)
    momentum = checks.in_range(where, "momentum", momentum, "[0, 1)")

    def init(params: Params) -> MomentumState:
        return MomentumState(jnp.zeros((), jnp.int32), zeros(where, params))

    def update(grads: PyTree, state: MomentumState, params: Params | None = None) -> tuple[PyTree, MomentumState]:
        check_state(where, state, MomentumState)
        scalars = [rate_at(learning_rate, state.count), momentum]
        updates, trace = over_leaves(where, rule, scalars, grads, {"trace": state.trace})
        return updates, MomentumState(advance(state.count), trace)

    return Optimizer(init, update)
