"""Define Lion, whose steps are signs."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from nnjax.optim._rule import Mask, Scalar, Scalars, decay_mask, from_rule, in_ranges, number_or_schedule
from nnjax.types import Optimizer, Params, ScalarOrSchedule


class LionState(NamedTuple):
    """Step count and momentum of `lion`."""

    count: Array  # type: ignore[assignment]  # (), int32
    mu: Params  # moving average of the gradients, with the same structure as the parameters


def lion(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-3,
    mask: Mask = None,
) -> Optimizer:
    """Return Lion, whose step is the sign of a weighted mean of momentum and gradient, plus weight decay.

        θ ← θ - λ (sign(β₁ m + (1 - β₁) g) + w θ)
        m ← β₂ m + (1 - β₂) g

    The sign of a complex number z is z / |z|.

    Differentiation through the update treats the sign as a constant, so λ and w get gradients but β₁ and β₂ get zero.

    Args:
      learning_rate: λ ≥ 0, as a number, a traced array, or a schedule `step -> rate`. Use 1/10 to 1/3 of Adam's rate.
      b1: β₁ in [0, 1), the weight of m in the direction of the step.
      b2: β₂ in [0, 1), the decay rate of m.
      mu_dtype: dtype in which m is stored, such as jnp.bfloat16 to save memory; None means the dtype of the parameters.
        Arithmetic uses float32 or a wider dtype.
      weight_decay: w ≥ 0, as a number, a traced array, or a schedule `step -> decay`.
      mask: tree of booleans, True for leaves that decay, with the same structure as the parameters or a prefix of it;
        a function of the parameters that returns such a tree; or None if all leaves decay.

    Raises:
      ValueError: if a hyper-parameter is out of range; in `update`, if params are missing or gradients differ from
        them in structure or shape.
      TypeError: in `init` and `update`, if parameters or gradients are neither floating-point nor complex; in `update`,
        if the state belongs to another optimizer.

    >>> optimizer = optim.lion(1e-3, weight_decay=0.0)
    >>> optimizer.update(jnp.array([5.0, -0.1]), optimizer.init(jnp.ones(2)), jnp.ones(2))[0]
    Array([-0.001,  0.001], dtype=float32)

    Source: Chen et al. 2023, arXiv:2302.06675. Equal to `optax.lion`.
    """
    b1, b2 = in_ranges("lion", "[0, 1)", {"b1": b1, "b2": b2})
    weight_decay = number_or_schedule("lion", "weight_decay", weight_decay)

    def rule(scalars: Scalars, g: Array, m: Array, p: Array) -> tuple[Array, Array]:
        rate, b1, b2, w = scalars
        direction = jnp.sign(b1 * m + (1 - b1) * g)
        return -rate * (direction + w * p), b2 * m + (1 - b2) * g

    hyper, decayed = [b1, b2, weight_decay], decay_mask("lion", mask)
    return from_rule(rule, LionState, learning_rate, hyper, name="lion", mu_dtype=mu_dtype, decayed=decayed)
