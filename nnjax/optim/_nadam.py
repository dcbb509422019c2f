"""Define NAdam, which is Adam with Nesterov momentum."""

from typing import NamedTuple

import optax
from jax import Array
from jax.typing import DTypeLike

from nnjax.optim._rule import Scalar, Scalars, from_rule, in_ranges, power, root_above, squared
from nnjax.types import Optimizer, Params, ScalarOrSchedule


class NadamState(NamedTuple):
    """Step count and moments of `nadam`."""

    count: Array  # type: ignore[assignment]  # (), int32
    mu: Params  # moving average of the gradients, with the same structure as the parameters
    nu: Params  # moving average of |g|², with the same structure as the parameters; its dtype is real


def nadam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> Optimizer:
    """Return NAdam, which is Adam with Nesterov momentum.

        m ← β₁ m + (1 - β₁) g            m̂ = β₁ m / (1 - β₁ᵗ⁺¹) + (1 - β₁) g / (1 - β₁ᵗ)
        v ← β₂ v + (1 - β₂) |g|²         v̂ = v / (1 - β₂ᵗ)
        θ ← θ - λ m̂ / (√(v̂ + ε_root) + ε)            t = 1, 2, …

    Args:
      learning_rate: λ ≥ 0, as a number, a traced array, or a schedule `step -> rate`.
      b1: β₁ in [0, 1), the decay rate of m. It is constant, as in optax, while it grows with t in torch and Keras.
      b2: β₂ in [0, 1), the decay rate of v.
      eps: ε ≥ 0, added outside the root.
      eps_root: number ≥ 0 added inside the root. It must be above 0 to differentiate through the update (`Run.steps`).
      mu_dtype: dtype in which m is stored, such as jnp.bfloat16 to save memory; None means the dtype of the parameters.
        Arithmetic uses float32 or a wider dtype.

    Raises:
      ValueError: if a hyper-parameter is out of range; in `update`, if gradients do not match the state in structure or
        shape, or if the update is differentiated with eps_root = 0.
      TypeError: in `init` and `update`, if parameters or gradients are neither floating-point nor complex; in `update`,
        if the state belongs to another optimizer.

    >>> optimizer = optim.nadam(1e-3)
    >>> optimizer.update(jnp.array([1.0]), optimizer.init(jnp.ones(1)))[0].round(6)
    Array([-0.001474], dtype=float32)

    Source: Dozat 2016, with a constant β₁ instead of its schedule. Equal to `optax.nadam`.
    """
    b1, b2 = in_ranges("nadam", "[0, 1)", {"b1": b1, "b2": b2})
    eps, eps_root = in_ranges("nadam", "[0, inf)", {"eps": eps, "eps_root": eps_root})
    root = root_above("nadam", [eps_root], "eps_root > 0, as in nadam(…, eps_root=1e-8)")

    def hyper(t: Array) -> Scalars:
        t_next = optax.safe_increment(t)
        return [b1, b2, eps, eps_root, 1 - power(b1, t), 1 - power(b1, t_next), 1 - power(b2, t)]

    def rule(scalars: Scalars, g: Array, m: Array, v: Array) -> tuple[Array, Array, Array]:
        rate, b1, b2, eps, eps_root, c1, c1_next, c2 = scalars
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * squared(g)
        m_hat, v_hat = m * (b1 / c1_next) + g * ((1 - b1) / c1), v * (1 / c2)  # scalar divisions, as in adam
        return -rate * m_hat / (root(v_hat + eps_root) + eps), m, v

    return from_rule(rule, NadamState, learning_rate, hyper, name="nadam", mu_dtype=mu_dtype)
