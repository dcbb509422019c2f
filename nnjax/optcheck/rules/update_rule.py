"""Define update rules with one choice at each place where published rules differ, and their hyper-parameters."""

from typing import Any, NamedTuple

import numpy as np

GRADIENT_DECAY = ("l2", "l2 and decoupled", "l2 in m", "l2 in v", "l2 wrong sign", "l1")  # added to the gradient
LAMB = ("lamb", "lamb clipped", "lamb inverted")  # trust ratios that include weight decay
# Hyper-parameters with the initial values of the state
STARTS = ("first_start", "second_start", "velocity_start", "rescaling_start")
# Second moments that contain ε
WITH_EPS = ("largest with eps", "largest ever with eps", "largest of m with eps", "largest weighted with eps")
LINEAR = ("largest", "largest ever", "largest of m", "largest weighted", *WITH_EPS, "absolute")  # see `is_linear`
# First moments that the step averages with β₁
LION = (
    "lion", "lion full gradient", "lion trace", "lion new m", "lion of signs", "lion of steps", "lion stored step",
    "lion precedence", "lion stored precedence", "lion swapped",
)  # fmt: skip
Number = Any  # a float, or an array (settings, 1) with one setting per row


class UpdateRule(NamedTuple):
    """An update rule: each field is a place where rules differ, and its value a choice (see `rule_choices.CHOICES`).

    The defaults describe gradient descent.
    """

    rounding: str = "none"  # rounding of the gradients
    accumulation: str = "none"  # sum of past gradients
    variance: str = "none"
    centre: str = "none"
    clip: str = "none"
    decay: str = "none"
    first: str = "none"  # first moment, m
    first_correction: str = "none"
    first_lag: str = "none"
    first_storage: str = "raw"
    second: str = "none"  # second moment, v
    second_scope: str = "element"  # elements that share a second moment
    second_correction: str = "none"
    second_lag: str = "none"
    second_storage: str = "raw"
    maximum: str = "none"
    root: str = "sqrt"
    eps: str = "none"
    numerator: str = "m"
    ahead_factor: str = "next"  # places of NAdam's look-ahead, from here to `product_storage`
    ahead_correction: str = "next"
    gradient_weight: str = "1 - b1"
    gradient_correction: str = "t"
    momentum_schedule: str = "half"
    product_storage: str = "raw"  # product of NAdam's momentum coefficients
    rectification: str = "none"
    rho: str = "t"
    rectifier: str = "root"
    below: str = "corrected m"  # steps that are not rectified
    sign: str = "none"
    rescaling: str = "none"
    rescaling_average: str = "squares"
    rescaling_eps: str = "inside"
    rescaling_lag: str = "one step"
    velocity: str = "none"
    velocity_storage: str = "raw"
    rate_position: str = "outside"
    nesterov: str = "none"
    trust: str = "none"
    counter: str = "t"
    schedule: str = "current"
    direction: str = "down"


class HyperParams(NamedTuple):
    """Hyper-parameters of all rules."""

    learning_rate: Number = 1e-3
    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    eps_root: Number = 0.0  # a second ε inside the root
    eps_state: Number = 0.0  # the ε added to v if eps is "in state"; 0 to use eps there
    momentum: Number = 0.9  # decay rate of the velocity
    dampening: Number = 0.0
    weight_decay: Number = 0.0
    momentum_decay: Number = np.inf  # ψ of NAdam's momentum β₁ (1 - ½ · .96^(t ψ)); ∞ makes it the constant β₁
    first_start: Number = 0.0  # initial first moment m₀
    second_start: Number = 0.0  # initial second moment v₀
    velocity_start: Number = 0.0  # initial velocity b₀
    rescaling_start: Number = 0.0  # initial average of Adadelta's squared steps s₀
    clip: Number = 1.0
    trust: Number = 1.0
    gamma: Number = 0.025  # weight of the variance reduction in MARS, and factor of the Hessian in Sophia
    b3: Number = 0.99  # decay rate of Adan's second moment, of Prodigy's sums, and of "another rate" in UpdateRule
    power: Number = 0.8  # κ of Adafactor's β₂ = 1 - t^-κ
    floor: Number = 1e-3  # lower bound of the parameters' RMS, by which Adafactor scales its steps
    distance: Number = 1e-6  # Prodigy's initial estimate of the distance to the solution
    delta: Number = 0.1  # AdamP projects a step if the cosine similarity is below delta / √size
    ratio: Number = 0.1  # AdamP multiplies the weight decay of projected leaves by this factor
    rate_decay: Number = 1e-3  # κ of a learning rate that decreases as λ / (1 + κ (t - 1))
    period: Number = 10.0  # number of steps after which a stepwise schedule multiplies the learning rate by 1 - κ


class Formula(NamedTuple):
    """An update rule with its hyper-parameters."""

    rule: Any  # an UpdateRule, or a rule of one of `families.FAMILIES`
    hyper: HyperParams


class Inputs(NamedTuple):
    """Inputs of an optimizer, with all leaves concatenated."""

    grads: np.ndarray  # (steps, elements)
    params: np.ndarray  # (steps, elements), before each step
    rates: np.ndarray  # (steps,), learning rate of each step relative to the hyper-parameter
    leaf: np.ndarray  # (elements,), index of the leaf
    leaf_count: int
    row: np.ndarray  # (elements,), index of the element's row, or -1 in leaves with fewer than 2 dimensions
    shapes: tuple[tuple[int, ...], ...] = ()  # shapes of the leaves, by their index
    norms: np.ndarray | None = None  # (steps,), norms of the gradients of all elements if some elements are left out


def is_linear(rule: UpdateRule) -> bool:
    """Return True if the rule divides by v itself instead of its square root."""
    return rule.second in LINEAR or rule.root == "none"
