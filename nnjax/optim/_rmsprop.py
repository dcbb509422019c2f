"""RMSProp."""

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


class RmspropState(NamedTuple):
    """State of `rmsprop`."""

    count: Array  # type: ignore[assignment]  # (), int32
    nu: Params  # moving average of squared gradients, like the parameters


def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
) -> Optimizer:
    """RMSProp: each parameter's step is divided by the recent size of its gradient.

        v ← ρ v + (1 - ρ) g²
        θ ← θ - λ g / √(v + ε)            or, without eps_in_sqrt,  θ ← θ - λ g / (√v + ε)

    Args:
      learning_rate: λ ≥ 0: a number, a traced array, or a schedule `step -> rate`.
      decay: ρ in [0, 1), the share of the average that is kept (torch calls it alpha, and its default is .99).
      eps: ε ≥ 0, keeps the step finite where gradients vanish.
      initial_scale: the average at first; 1 in TensorFlow's old form.
      eps_in_sqrt: inside the root as in optax and Keras, or outside as in torch; inside where the update is
        differentiated (`Run.steps`).

    Raises:
      ValueError: for hyper-parameters out of range; in `update`, for gradients of another structure or shape.
      TypeError: in `init`, for parameters that are not floating.

    >>> optimizer = optim.rmsprop(0.1, decay=0.75)
    >>> optimizer.update(jnp.array([1.0, -100.0]), optimizer.init(jnp.ones(2)))[0]
    Array([-0.2,  0.2], dtype=float32)

    Source: Hinton 2012, lecture 6e of "Neural Networks for Machine Learning". Equal to `optax.rmsprop`.
    """
    learning_rate = check_rate("rmsprop", learning_rate)
    decay = checks.in_range("rmsprop", "decay", decay, "[0, 1)")
    eps = checks.in_range("rmsprop", "eps", eps, "[0, inf)")
    initial_scale = checks.in_range("rmsprop", "initial_scale", initial_scale, "[0, inf)")
    if eps_in_sqrt:
        root = root_above("rmsprop", [eps], "eps > 0")
    else:
        root = root_above("rmsprop", [initial_scale], "eps inside the root: eps_in_sqrt=True")

    def rule(scalars: Scalars, g: Array, v: Array) -> tuple[Array, Array]:
        rate, rho, eps = scalars
        v = rho * v + (1 - rho) * g**2
        size = root(v + eps) if eps_in_sqrt else root(v) + eps
        return -rate * g / size, v

    def init(params: Params) -> RmspropState:
        return RmspropState(jnp.zeros((), jnp.int32), full("rmsprop", params, initial_scale))

    def update(grads: PyTree, state: RmspropState, params: Params | None = None) -> tuple[PyTree, RmspropState]:
        check_state("rmsprop", state, RmspropState)
        scalars = [rate_at(learning_rate, state.count), decay, eps]
        updates, nu = over_leaves("rmsprop", rule, scalars, grads, {"nu": state.nu})
        return updates, RmspropState(advance(state.count), nu)

    return Optimizer(init, update)
