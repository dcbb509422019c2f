"""Define RMSProp, which divides each gradient by the root mean square of recent gradients."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from nnjax.optim._rule import Scalar, Scalars, from_rule, in_ranges, power, root_above, squared
from nnjax.types import Optimizer, Params, ScalarOrSchedule


class RmspropState(NamedTuple):
    """Step count and moving averages of `rmsprop`."""

    count: Array  # type: ignore[assignment]  # (), int32
    nu: Params  # moving average of |g|², with the same structure as the parameters; its dtype is real
    mu: Params = ()  # with `centered`: moving average of the gradients, with the same structure as the parameters
    trace: Params = ()  # with `momentum`: velocity, with the same structure as the parameters


def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: Scalar = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> Optimizer:
    """Return RMSProp, which divides each gradient by the root mean square of recent gradients.

        v ← ρ v + (1 - ρ) |g|²
        u = λ g / √(v + ε)                or, without eps_in_sqrt,  u = λ g / (√v + ε)
        θ ← θ - u

    With `bias_correction`, the averages are divided by 1 - ρᵗ. With `centered`, the variance replaces v in u:

        m ← ρ m + (1 - ρ) g               v - |m|²  instead of  v

    With `momentum`, the steps are accumulated:

        b ← μ b + u
        θ ← θ - b                         or, with nesterov,  θ ← θ - (u + μ b)

    Args:
      learning_rate: λ ≥ 0, as a number, a traced array, or a schedule `step -> rate`. It multiplies the gradient inside
        the velocity b, as in optax and Keras. In torch it multiplies b, so steps differ if the rate changes.
      decay: ρ in [0, 1), the decay rate of the averages (torch calls it alpha and sets it to 0.99).
      eps: ε ≥ 0, added to the denominator so that steps stay finite if gradients vanish.
      initial_scale: initial value of v, at least 0 (TensorFlow 1 starts at 1).
      eps_in_sqrt: True to put ε inside the root, as in optax and Keras; False to put it outside, as in torch. To
        differentiate through the update (`Run.steps`), use True and ε > 0, or False with initial_scale > 0 and without
        `centered`.
      centered: True to divide by the standard deviation of the gradients instead of their root mean square.
      momentum: μ in [0, 1), the decay rate of the velocity; None disables momentum.
      nesterov: True to use Nesterov momentum instead of the velocity itself. It requires `momentum`.
      bias_correction: True to correct the averages for their bias towards 0, as Adam does.

    Raises:
      ValueError: if a hyper-parameter is out of range, or if nesterov is True without momentum; in `update`, if
        gradients do not match the state in structure or shape, or if the update is differentiated without the
        conditions above.
      TypeError: in `init` and `update`, if parameters or gradients are neither floating-point nor complex; in `update`,
        if the state belongs to another optimizer.

    >>> optimizer = optim.rmsprop(0.1, decay=0.75)
    >>> optimizer.update(jnp.array([1.0, -100.0]), optimizer.init(jnp.ones(2)))[0]
    Array([-0.2,  0.2], dtype=float32)

    Source: Hinton 2012, lecture 6e of "Neural Networks for Machine Learning"; Graves 2013, arXiv:1308.0850, for
    `centered` and `momentum`. Equal to `optax.rmsprop`.
    """
    (decay,) = in_ranges("rmsprop", "[0, 1)", {"decay": decay})
    eps, initial_scale = in_ranges("rmsprop", "[0, inf)", {"eps": eps, "initial_scale": initial_scale})
    velocity = momentum is not None
    (mu,) = in_ranges("rmsprop", "[0, 1)", {"momentum": 0.0 if momentum is None else momentum})
    if nesterov and not velocity:
        raise ValueError("rmsprop: nesterov=True needs momentum, as in rmsprop(1e-3, momentum=0.9, nesterov=True)")
    if eps_in_sqrt:
        root = root_above("rmsprop", [eps], "eps > 0")
    else:
        offsets = [] if centered else [initial_scale]
        root = root_above("rmsprop", offsets, "eps inside the root: eps_in_sqrt=True")

    def hyper(t: Array) -> Scalars:
        return [decay, eps, mu, 1 - power(decay, t) if bias_correction else 1.0]

    def rule(scalars: Scalars, g: Array, *moments: Array) -> tuple[Array, ...]:
        rate, rho, eps, mu, c = scalars
        new = dict(zip(fields, moments, strict=True))
        new["nu"] = rho * new["nu"] + (1 - rho) * squared(g)
        v = new["nu"] / c if bias_correction else new["nu"]
        if centered:
            new["mu"] = rho * new["mu"] + (1 - rho) * g
            v = jnp.maximum(v - squared(new["mu"] / c), 0)  # rounding could make the variance negative
        step = -rate * g / (root(v + eps) if eps_in_sqrt else root(v) + eps)
        if velocity:
            new["trace"] = mu * new["trace"] + step
            step = step + mu * new["trace"] if nesterov else new["trace"]
        return step, *new.values()

    fields = ["nu", *(["mu"] if centered else []), *(["trace"] if velocity else [])]
    return from_rule(rule, RmspropState, learning_rate, hyper, name="rmsprop", fields=fields, initial=initial_scale)
