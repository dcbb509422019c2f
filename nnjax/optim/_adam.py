"""Adam."""

from collections.abc import Callable
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
    over_leaves,
    power,
    rate_at,
    root_above,
    zeros,
)
from nnjax.types import Optimizer, Params, PyTree, ScalarOrSchedule


class AdamState(NamedTuple):
    """State of `adam`, `adamw` and `nadam`."""

    count: Array  # type: ignore[assignment]  # (), int32
    mu: Params  # moving average of gradients, like the parameters
    nu: Params  # moving average of squared gradients, like the parameters


def adam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
) -> Optimizer:
    """Adam: Momentum's direction at RMSProp's scale, both corrected for having started at zero.

        m ← β₁ m + (1 - β₁) g            m̂ = m / (1 - β₁ᵗ)
        v ← β₂ v + (1 - β₂) g²           v̂ = v / (1 - β₂ᵗ)
        θ ← θ - λ m̂ / (√(v̂ + ε_root) + ε)            t = 1, 2, …

    Args:
      learning_rate: λ ≥ 0: a number, a traced array, or a schedule `step -> rate`.
      b1: β₁ in [0, 1), the share of m that is kept.
      b2: β₂ in [0, 1), the share of v that is kept.
      eps: ε ≥ 0, outside the root, after the correction, as in the paper's Algorithm 1 (Keras adds it before the
        correction, the paper's "ε̂").
      eps_root: ≥ 0, inside the root; above 0 it makes the update differentiable where gradients are always zero.

    Raises:
      ValueError: for hyper-parameters out of range; in `update`, for gradients of another structure or shape; where the
        update is differentiated (`Run.steps`) with eps_root = 0.
      TypeError: in `init`, for parameters that are not floating.

    >>> optimizer = optim.adam(1e-3)
    >>> optimizer.update(jnp.array([1.0, -100.0]), optimizer.init(jnp.ones(2)))[0].round(6)
    Array([-0.001,  0.001], dtype=float32)

    Source: Kingma and Ba 2015, arXiv:1412.6980. Equal to `optax.adam`.
    """
    learning_rate = check_rate("adam", learning_rate)
    b1, b2 = check_betas("adam", b1, b2)
    eps = checks.in_range("adam", "eps", eps, "[0, inf)")
    eps_root = checks.in_range("adam", "eps_root", eps_root, "[0, inf)")
    root = root_above("adam", [eps_root], "eps_root > 0, as in adam(…, eps_root=1e-8)")

    def rule(scalars: Scalars, g: Array, m: Array, v: Array) -> tuple[Array, Array, Array]:
        rate, b1, b2, eps, eps_root, c1, c2 = scalars
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m * (1 / c1), v * (1 / c2)  # m / c1 would divide each number, a quarter slower
        return -rate * m_hat / (root(v_hat + eps_root) + eps), m, v

    def update(grads: PyTree, state: AdamState, params: Params | None = None) -> tuple[PyTree, AdamState]:
        check_state("adam", state, AdamState)
        t = advance(state.count)
        scalars = [rate_at(learning_rate, state.count), b1, b2, eps, eps_root, 1 - power(b1, t), 1 - power(b2, t)]
        updates, mu, nu = over_leaves("adam", rule, scalars, grads, {"mu": state.mu, "nu": state.nu})
        return updates, AdamState(t, mu, nu)

    return Optimizer(init_moments("adam"), update)


def check_betas(where: str, b1: Scalar, b2: Scalar) -> tuple[Scalar, Scalar]:
    """Both in [0, 1)."""
    return checks.in_range(where, "b1", b1, "[0, 1)"), checks.in_range(where, "b2", b2, "[0, 1)")


def init_moments(where: str) -> Callable[[Params], AdamState]:
    """Both moments at zero."""
    return lambda params: AdamState(jnp.zeros((), jnp.int32), zeros(where, params), zeros(where, params))
