"""Define gradient descent with momentum, plain or Nesterov's, which adds up gradients in a velocity."""

from typing import NamedTuple

from jax import Array
from jax.typing import DTypeLike

from nnjax.optim._rule import Scalar, Scalars, from_rule, in_ranges
from nnjax.types import Optimizer, Params, ScalarOrSchedule


class MomentumState(NamedTuple):
    """Step count and velocity of `momentum`."""

    count: Array  # type: ignore[assignment]  # (), int32
    trace: Params  # velocity, with the same structure as the parameters


class NesterovState(NamedTuple):
    """Step count and velocity of `nesterov`."""

    count: Array  # type: ignore[assignment]  # (), int32
    trace: Params  # velocity, with the same structure as the parameters


def momentum(
    learning_rate: ScalarOrSchedule,
    momentum: Scalar = 0.9,
    *,
    moving_average: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> Optimizer:
    """Return gradient descent with momentum ("heavy ball"), whose steps grow while the gradient keeps its direction.

        v ← μ v + g            or, with moving_average,  v ← μ v + (1 - μ) g
        θ ← θ - λ v

    Args:
      learning_rate: λ ≥ 0, as a number, a traced array, or a schedule `step -> rate`. It multiplies the velocity, as in
        optax and torch. Keras multiplies the gradient inside the velocity, so steps differ if the rate changes.
      momentum: μ in [0, 1), the decay rate of the velocity.
      moving_average: True to average the gradients, as in many tutorials; steps are then 1 - μ times as large.
      accumulator_dtype: dtype in which v is stored, such as jnp.bfloat16 to save memory; None means the dtype of the
        parameters. Arithmetic uses float32 or a wider dtype.

    Raises:
      ValueError: if a hyper-parameter is out of range; in `update`, if gradients do not match the state in structure or
        shape.
      TypeError: in `init` and `update`, if parameters or gradients are neither floating-point nor complex; in `update`,
        if the state belongs to another optimizer.

    >>> optimizer = optim.momentum(0.1)
    >>> updates, state = optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
    >>> optimizer.update(jnp.ones(2), state)[0]
    Array([-0.19, -0.19], dtype=float32)

    Source: Polyak 1964. Equal to `optax.sgd(learning_rate, momentum)`; with moving_average, equal to
    `optax.chain(optax.ema(momentum, debias=False), optax.scale_by_learning_rate(learning_rate))`.
    """
    hyper = in_ranges("momentum", "[0, 1)", {"momentum": momentum})

    def rule(scalars: Scalars, g: Array, v: Array) -> tuple[Array, Array]:
        rate, mu = scalars
        v = mu * v + ((1 - mu) * g if moving_average else g)
        return -rate * v, v

    return from_rule(rule, MomentumState, learning_rate, hyper, name="momentum", mu_dtype=accumulator_dtype)


def nesterov(
    learning_rate: ScalarOrSchedule, momentum: Scalar = 0.9, *, accumulator_dtype: DTypeLike | None = None
) -> Optimizer:
    """Return gradient descent with Nesterov momentum, which evaluates the gradient one velocity step ahead.

        v ← μ v + g
        θ ← θ - λ (g + μ v)

    Args:
      learning_rate: λ ≥ 0, as a number, a traced array, or a schedule `step -> rate`.
      momentum: μ in [0, 1), the decay rate of the velocity.
      accumulator_dtype: dtype in which v is stored, such as jnp.bfloat16 to save memory; None means the dtype of the
        parameters. Arithmetic uses float32 or a wider dtype.

    Raises:
      ValueError: if a hyper-parameter is out of range; in `update`, if gradients do not match the state in structure or
        shape.
      TypeError: in `init` and `update`, if parameters or gradients are neither floating-point nor complex; in `update`,
        if the state belongs to another optimizer.

    >>> optimizer = optim.nesterov(0.1)
    >>> optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))[0]
    Array([-0.19, -0.19], dtype=float32)

    Source: Nesterov 1983; Sutskever et al. 2013, rewritten in terms of the shifted parameters as in Bengio et al. 2012,
    arXiv:1212.0901, and torch. Equal to `optax.sgd(learning_rate, momentum, nesterov=True)`.
    """
    hyper = in_ranges("nesterov", "[0, 1)", {"momentum": momentum})

    def rule(scalars: Scalars, g: Array, v: Array) -> tuple[Array, Array]:
        rate, mu = scalars
        v = mu * v + g
        return -rate * (g + mu * v), v

    return from_rule(rule, NesterovState, learning_rate, hyper, name="nesterov", mu_dtype=accumulator_dtype)
