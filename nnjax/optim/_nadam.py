"""NAdam: Adam with Nesterov's momentum."""

from jax import Array

from nnjax import checks
from nnjax.optim._adam import AdamState, check_betas, init_moments
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
)
from nnjax.types import Optimizer, Params, PyTree, ScalarOrSchedule


def nadam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
) -> Optimizer:
    """NAdam: Adam that looks ahead along its momentum, as Nesterov's form does.

        m ← β₁ m + (1 - β₁) g            m̂ = β₁ m / (1 - β₁ᵗ⁺¹) + (1 - β₁) g / (1 - β₁ᵗ)
        v ← β₂ v + (1 - β₂) g²           v̂ = v / (1 - β₂ᵗ)
        θ ← θ - λ m̂ / (√(v̂ + ε_root) + ε)            t = 1, 2, …

    Args:
      learning_rate: λ ≥ 0: a number, a traced array, or a schedule `step -> rate`.
      b1: β₁ in [0, 1); constant, as in optax (torch and Keras let it grow with t).
      b2: β₂ in [0, 1).
      eps: ε ≥ 0, outside the root.
      eps_root: ≥ 0, inside the root; > 0 where the update is differentiated (`Run.steps`).

    Raises:
      ValueError: for hyper-parameters out of range; in `update`, for gradients of another structure or shape.
      TypeError: in `init`, for parameters that are not floating.

    >>> optimizer = optim.nadam(1e-3)
    >>> optimizer.update(jnp.array([1.0]), optimizer.init(jnp.ones(1)))[0].round(6)
    Array([-0.001474], dtype=float32)

    Source: Dozat 2016, without its schedule of β₁. Equal to `optax.nadam`.
    """
    learning_rate = check_rate("nadam", learning_rate)
    b1, b2 = check_betas("nadam", b1, b2)
    eps = checks.in_range("nadam", "eps", eps, "[0, inf)")
    eps_root = checks.in_range("nadam", "eps_root", eps_root, "[0, inf)")
    root = root_above("nadam", [eps_root], "eps_root > 0, as in nadam(…, eps_root=1e-8)")

    def rule(scalars: Scalars, g: Array, m: Array, v: Array) -> tuple[Array, Array, Array]:
        rate, b1, b2, eps, eps_root, c1, c1_next, c2 = scalars
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m * (b1 / c1_next) + g * ((1 - b1) / c1), v * (1 / c2)  # as in adam
        return -rate * m_hat / (root(v_hat + eps_root) + eps), m, v

    def update(grads: PyTree, state: AdamState, params: Params | None = None) -> tuple[PyTree, AdamState]:
        check_state("nadam", state, AdamState)
        t = advance(state.count)
        corrections = [1 - power(b1, t), 1 - power(b1, advance(t)), 1 - power(b2, t)]
        scalars = [rate_at(learning_rate, state.count), b1, b2, eps, eps_root, *corrections]
        updates, mu, nu = over_leaves("nadam", rule, scalars, grads, {"mu": state.mu, "nu": state.nu})
        return updates, AdamState(t, mu, nu)

    return Optimizer(init_moments("nadam"), update)
