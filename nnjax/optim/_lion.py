"""Lion."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from nnjax import checks
from nnjax.optim._adam import check_betas
from nnjax.optim._rule import (
    Scalar,
    Scalars,
    advance,
    check_rate,
    check_state,
    need_params,
    over_leaves,
    rate_at,
    zeros,
)
from nnjax.optim._mask import Mask, masked
from nnjax.types import Optimizer, Params, PyTree, ScalarOrSchedule


class LionState(NamedTuple):
    """State of `lion`."""

    count: Array  # type: ignore[assignment]  # (), int32
    mu: Params  # moving average of gradients, like the parameters


def lion(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    weight_decay: Scalar = 1e-3,
    mask: Mask = None,
) -> Optimizer:
    """Lion: steps of one size, in the direction that momentum and gradient together point to.

        θ ← θ - λ (sign(β₁ m + (1 - β₁) g) + w θ)
        m ← β₂ m + (1 - β₂) g

    Args:
      learning_rate: λ ≥ 0: a number, a traced array, or a schedule `step -> rate`; 3 to 10 times below Adam's.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      weight_decay: w ≥ 0.
      mask: which leaves decay: a tree of booleans, a prefix of the parameters, or a function of them; None for all.

    Raises:
      ValueError: for hyper-parameters out of range; in `update`, without params, or for gradients of another form.
      TypeError: in `init`, for parameters that are not floating.

    >>> optimizer = optim.lion(1e-3, weight_decay=0.0)
    >>> optimizer.update(jnp.array([5.0, -0.1]), optimizer.init(jnp.ones(2)), jnp.ones(2))[0]
    Array([-0.001,  0.001], dtype=float32)

    Differentiated through its updates, the sign counts as constant: gradients reach λ and w, but not β₁ and β₂.

    Source: Chen et al. 2023, arXiv:2302.06675. Equal to `optax.lion`.
    """
    learning_rate = check_rate("lion", learning_rate)
    b1, b2 = check_betas("lion", b1, b2)
    weight_decay = checks.in_range("lion", "weight_decay", weight_decay, "[0, inf)")

    def rule(scalars: Scalars, g: Array, m: Array, p: Array) -> tuple[Array, Array]:
        rate, b1, b2, w = scalars
        direction = jnp.sign(b1 * m + (1 - b1) * g)
        return -rate * (direction + w * p), b2 * m + (1 - b2) * g

    def init(params: Params) -> LionState:
        return LionState(jnp.zeros((), jnp.int32), zeros("lion", params))

    def update(grads: PyTree, state: LionState, params: Params | None = None) -> tuple[PyTree, LionState]:
        check_state("lion", state, LionState)
        params = need_params("lion", params)
        scalars = [rate_at(learning_rate, state.count), b1, b2, weight_decay]
        trees = {"mu": state.mu, "params": masked(mask, params)}
        updates, mu = over_leaves("lion", rule, scalars, grads, trees)
        return updates, LionState(advance(state.count), mu)

    return Optimizer(init, update)
