"""AdamW: Adam with decoupled weight decay."""

from jax import Array

from nnjax import checks
from nnjax.optim._adam import AdamState, check_betas, init_moments
from nnjax.optim._rule import (
    Scalar,
    Scalars,
    advance,
    check_rate,
    check_state,
    need_params,
    over_leaves,
    power,
    rate_at,
    root_above,
)
from nnjax.optim._mask import Mask, masked
from nnjax.types import Optimizer, Params, PyTree, ScalarOrSchedule


def adamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 1e-4,
    mask: Mask = None,
) -> Optimizer:
    """AdamW: Adam whose weights also shrink, by a share that the gradient's scale does not touch.

        m ← β₁ m + (1 - β₁) g            m̂ = m / (1 - β₁ᵗ)
        v ← β₂ v + (1 - β₂) g²           v̂ = v / (1 - β₂ᵗ)
        θ ← θ - λ (m̂ / (√(v̂ + ε_root) + ε) + w θ)            t = 1, 2, …

    Args:
      learning_rate: λ ≥ 0: a number, a traced array, or a schedule `step -> rate`; it multiplies the decay too.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε ≥ 0, outside the root.
      eps_root: ≥ 0, inside the root; > 0 where the update is differentiated (`Run.steps`).
      weight_decay: w ≥ 0 (torch's default is 1e-2).
      mask: which leaves decay: a tree of booleans, a prefix of the parameters, or a function of them; None for all.

    Raises:
      ValueError: for hyper-parameters out of range; in `update`, without params, or for gradients of another form.
      TypeError: in `init`, for parameters that are not floating.

    >>> optimizer = optim.adamw(1e-3, weight_decay=0.1)
    >>> params = jnp.array([1.0, 100.0])
    >>> optimizer.update(jnp.array([1.0, 1.0]), optimizer.init(params), params)[0].round(6)
    Array([-0.0011, -0.011 ], dtype=float32)

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, with λ on the decay as in torch. Equal to `optax.adamw`.
    """
    learning_rate = check_rate("adamw", learning_rate)
    b1, b2 = check_betas("adamw", b1, b2)
    eps = checks.in_range("adamw", "eps", eps, "[0, inf)")
    eps_root = checks.in_range("adamw", "eps_root", eps_root, "[0, inf)")
    root = root_above("adamw", [eps_root], "eps_root > 0, as in adamw(…, eps_root=1e-8)")
    weight_decay = checks.in_range("adamw", "weight_decay", weight_decay, "[0, inf)")

    def rule(scalars: Scalars, g: Array, m: Array, v: Array, p: Array) -> tuple[Array, Array, Array]:
        rate, b1, b2, eps, eps_root, c1, c2, w = scalars
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m * (1 / c1), v * (1 / c2)  # as in adam
        return -rate * (m_hat / (root(v_hat + eps_root) + eps) + w * p), m, v

    def update(grads: PyTree, state: AdamState, params: Params | None = None) -> tuple[PyTree, AdamState]:
        check_state("adamw", state, AdamState)
        params = need_params("adamw", params)
        t = advance(state.count)
        corrections = [1 - power(b1, t), 1 - power(b2, t)]
        scalars = [rate_at(learning_rate, state.count), b1, b2, eps, eps_root, *corrections, weight_decay]
        trees = {"mu": state.mu, "nu": state.nu, "params": masked(mask, params)}
        updates, mu, nu = over_leaves("adamw", rule, scalars, grads, trees)
        return updates, AdamState(t, mu, nu)

    return Optimizer(init_moments("adamw"), update)
