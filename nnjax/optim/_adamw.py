"""Define AdamW, which is Adam with decoupled weight decay."""

from typing import NamedTuple

from jax import Array
from jax.typing import DTypeLike

from nnjax.optim._rule import (
    Mask,
    Scalar,
    Scalars,
    decay_mask,
    from_rule,
    in_ranges,
    number_or_schedule,
    power,
    root_above,
    squared,
)
from nnjax.types import Optimizer, Params, ScalarOrSchedule


class AdamwState(NamedTuple):
    """Step count and moments of `adamw`."""

    count: Array  # type: ignore[assignment]  # (), int32
    mu: Params  # moving average of the gradients, with the same structure as the parameters
    nu: Params  # moving average of |g|², with the same structure as the parameters; its dtype is real


def adamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
) -> Optimizer:
    """Return AdamW, which is Adam with decoupled weight decay: gradient statistics do not scale the decay.

        m ← β₁ m + (1 - β₁) g            m̂ = m / (1 - β₁ᵗ)
        v ← β₂ v + (1 - β₂) |g|²         v̂ = v / (1 - β₂ᵗ)
        θ ← θ - λ (m̂ / (√(v̂ + ε_root) + ε) + w θ)            t = 1, 2, …

    Args:
      learning_rate: λ ≥ 0, as a number, a traced array, or a schedule `step -> rate`. It also multiplies the decay.
      b1: β₁ in [0, 1), the decay rate of m.
      b2: β₂ in [0, 1), the decay rate of v.
      eps: ε ≥ 0, added outside the root.
      eps_root: number ≥ 0 added inside the root. It must be above 0 to differentiate through the update (`Run.steps`).
      mu_dtype: dtype in which m is stored, such as jnp.bfloat16 to save memory; None means the dtype of the parameters.
        Arithmetic uses float32 or a wider dtype.
      weight_decay: w ≥ 0, as a number (torch's default is 1e-2), a traced array, or a schedule `step -> decay`.
      mask: tree of booleans, True for leaves that decay, with the same structure as the parameters or a prefix of it;
        a function of the parameters that returns such a tree; or None if all leaves decay.

    Raises:
      ValueError: if a hyper-parameter is out of range; in `update`, if params are missing or gradients differ from
        them in structure or shape, or if the update is differentiated with eps_root = 0.
      TypeError: in `init` and `update`, if parameters or gradients are neither floating-point nor complex; in `update`,
        if the state belongs to another optimizer.

    >>> optimizer = optim.adamw(1e-3, weight_decay=0.1)
    >>> params = jnp.array([1.0, 100.0])
    >>> optimizer.update(jnp.array([1.0, 1.0]), optimizer.init(params), params)[0].round(6)
    Array([-0.0011, -0.011 ], dtype=float32)

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101; λ multiplies the decay, as in torch. Equal to `optax.adamw`.
    """
    b1, b2 = in_ranges("adamw", "[0, 1)", {"b1": b1, "b2": b2})
    eps, eps_root = in_ranges("adamw", "[0, inf)", {"eps": eps, "eps_root": eps_root})
    weight_decay = number_or_schedule("adamw", "weight_decay", weight_decay)
    root = root_above("adamw", [eps_root], "eps_root > 0, as in adamw(…, eps_root=1e-8)")

    def hyper(t: Array) -> Scalars:
        return [b1, b2, eps, eps_root, weight_decay, 1 - power(b1, t), 1 - power(b2, t)]

    def rule(scalars: Scalars, g: Array, m: Array, v: Array, p: Array) -> tuple[Array, Array, Array]:
        rate, b1, b2, eps, eps_root, w, c1, c2 = scalars
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * squared(g)
        m_hat, v_hat = m * (1 / c1), v * (1 / c2)  # scalar divisions are faster; see adam
        return -rate * (m_hat / (root(v_hat + eps_root) + eps) + w * p), m, v

    return from_rule(
        rule, AdamwState, learning_rate, hyper, name="adamw", mu_dtype=mu_dtype, decayed=decay_mask("adamw", mask)
    )
