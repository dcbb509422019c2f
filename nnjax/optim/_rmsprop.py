"""RMSProp."""

from typing import NamedTuple

from jax import Array

from nnjax.optim._rule import Scalar, Scalars, from_rule, in_ranges, root_above
from nnjax.types import Optimizer, Params, ScalarOrSchedule


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
    """Return RMSProp, which divides each gradient by the root mean square of its recent values.

        v ← ρ v + (1 - ρ) g²
        θ ← θ - λ g / √(v + ε)            or, without eps_in_sqrt,  θ ← θ - λ g / (√v + ε)

    Args:
      learning_rate: λ ≥ 0: a number, a traced array, or a schedule `step -> rate`.
      decay: ρ in [0, 1), the decay rate of the average (torch calls it alpha and sets it to 0.99).
      eps: ε ≥ 0, keeps the step finite if gradients vanish.
      initial_scale: initial value of v ≥ 0 (TensorFlow 1: 1).
      eps_in_sqrt: True puts ε inside the root as in optax and Keras, False outside as in torch. It must be True to
        differentiate through the update (`Run.steps`), unless initial_scale > 0.

    Raises:
      ValueError: if a hyper-parameter is out of range; in `update`, if gradients differ in structure or shape.
      TypeError: in `init`, if a parameter is not floating.

    >>> optimizer = optim.rmsprop(0.1, decay=0.75)
    >>> optimizer.update(jnp.array([1.0, -100.0]), optimizer.init(jnp.ones(2)))[0]
    Array([-0.2,  0.2], dtype=float32)

    Source: Hinton 2012, lecture 6e of "Neural Networks for Machine Learning". Equal to `optax.rmsprop`.
    """
    (decay,) = in_ranges("rmsprop", "[0, 1)", {"decay": decay})
    eps, initial_scale = in_ranges("rmsprop", "[0, inf)", {"eps": eps, "initial_scale": initial_scale})
    if eps_in_sqrt:
        root = root_above("rmsprop", [eps], "eps > 0")
    else:
        root = root_above("rmsprop", [initial_scale], "eps inside the root: eps_in_sqrt=True")

    def rule(scalars: Scalars, g: Array, v: Array) -> tuple[Array, Array]:
        rate, rho, eps = scalars
        v = rho * v + (1 - rho) * g**2
        scale = root(v + eps) if eps_in_sqrt else root(v) + eps
        return -rate * g / scale, v

    return from_rule(rule, RmspropState, learning_rate, [decay, eps], name="rmsprop", initial=initial_scale)
