"""What the choices of a form mean in words, and which other choices are next to it."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nnjax.optcheck.rules.update_rule import Form, Hyper

AXES: dict[str, dict[str, str]] = {
    "clip": {
        "none": "gradients are taken as they are",
        "value": "gradients are clipped element by element",
        "global norm": "gradients are clipped by the norm of all of them",
        "leaf norm": "gradients are clipped by the norm of each leaf",
    },
    "decay": {
        "none": "there is no weight decay",
        "decoupled": "weight decay is taken off beside the gradient's part, times the learning rate (decoupled)",
        "l2": "weight decay is added to the gradient, and goes through the moments (L2)",
        "l2 in m": "weight decay is added to the gradient of the first moment only",
        "divided": "weight decay is added to the first moment at the step, and divided by the root",
        "without rate": "weight decay is not multiplied by the learning rate",
        "of the updated": "weight decay is taken of the parameters that are already updated",
        "growing": "weight decay has the wrong sign: parameters grow",
    },
    "first": {
        "none": "there is no first moment",
        "ema": "the first moment is a moving average, β₁ m + (1 - β₁) g",
        "trace": "the first moment is a decaying sum, β₁ m + g, without (1 - β₁)",
        "lion": "the step takes β₁, the moment that is kept β₂ (Lion)",
        "with b2": "the first moment decays with β₂",
        "mixed": "the first moment takes (1 - β₂) of the gradient, β₁ of itself",
        "swapped": "the first moment has β₁ and (1 - β₁) the wrong way round",
        "mean": "the first moment is the mean of all gradients so far",
    },
    "first_correction": {
        "none": "the first moment's bias is not corrected",
        "t": "the first moment is divided by 1 - β₁ᵗ",
        "t + 1": "the first moment's correction is one step ahead, 1 - β₁ᵗ⁺¹",
        "constant": "the first moment is divided by the constant 1 - β₁ at every step",
        "multiplied": "the first moment is multiplied by 1 - β₁ᵗ, not divided",
        "linear": "the first moment is divided by 1 - β₁·t: a product, not a power",
        "swapped": "the first moment is divided by 1 - β₂ᵗ, the other moment's correction",
    },
    "first_used": {
        "new": "the step takes the new first moment",
        "old": "the step takes the first moment of the step before",
    },
    "first_kept": {
        "m": "the first moment is kept",
        "corrected": "the corrected first moment is stored back",
        "lost": "the first moment is never written back: it starts anew at every step",
    },
    "second": {
        "none": "there is no second moment",
        "ema": "the second moment is a moving average of g²",
        "centered": "the second moment is centered, v - (mean of g)²",
        "trace": "the second moment is a decaying sum, without (1 - β₂)",
        "sum": "the second moment is the sum of all g²",
        "largest": "the second moment is max(β₂ v, |g|)",
        "largest with eps": "the second moment is max(β₂ v, |g| + ε)",
        "belief": "the second moment is of the residual g - m, m being the new one",
        "belief before": "the second moment is of the residual g - m, m being the one of the step before",
        "yogi": "the second moment changes by (1 - β₂) g² towards g² (Yogi)",
        "absolute": "the second moment is a moving average of |g|",
        "of m": "the second moment is of m², not of g²",
        "with b1": "the second moment decays with β₁",
        "mixed": "the second moment takes (1 - β₁) of g², β₂ of itself",
        "swapped": "the second moment has β₂ and (1 - β₂) the wrong way round",
        "on m": "the second moment is built on m: β₂ m + (1 - β₂) g²",
        "mean": "the second moment is the mean of all g² so far",
    },
    "second_correction": {
        "none": "the second moment's bias is not corrected",
        "t": "the second moment is divided by 1 - β₂ᵗ",
        "t + 1": "the second moment's correction is one step ahead, 1 - β₂ᵗ⁺¹",
        "constant": "the second moment is divided by the constant 1 - β₂ at every step",
        "multiplied": "the second moment is multiplied by 1 - β₂ᵗ, not divided",
        "linear": "the second moment is divided by 1 - β₂·t: a product, not a power",
        "swapped": "the second moment is divided by 1 - β₁ᵗ, the other moment's correction",
    },
    "second_used": {
        "new": "the step takes the new second moment",
        "old": "the step takes the second moment of the step before",
    },
    "second_kept": {
        "v": "the second moment is kept",
        "corrected": "the corrected second moment is stored back",
        "lost": "the second moment is never written back: it starts anew at every step",
    },
    "maximum": {
        "none": "the second moment may fall",
        "corrected": "the largest corrected second moment so far is taken (AMSGrad, max of v̂)",
        "raw": "the largest second moment so far is taken and then corrected (AMSGrad, max of v)",
    },
    "root": {
        "sqrt": "the root of the second moment is taken",
        "none": "the root of the second moment is missing",
    },
    "eps": {
        "none": "there is no ε",
        "outside": "ε is added outside the root, after the correction",
        "inside": "ε is added inside the root, after the correction",
        "before correction": "ε is added outside the root before the bias correction (the paper's ε̂)",
        "inside before correction": "ε is added inside the root before the bias correction",
        "over the root": "ε is added after dividing, 1/√v + ε",
        "floor": "ε is the least value of the root, max(√v, ε)",
        "grows": "ε is added to the second moment that is kept, and grows with the steps; outside the root as well",
        "grows alone": "ε is added to the second moment that is kept, and grows with the steps; nowhere else",
    },
    "numerator": {
        "m": "the step follows the first moment",
        "nadam": "the step looks ahead with Nesterov's corrections (NAdam)",
        "lookahead": "the step looks ahead, β₁ m + (1 - β₁) g, both with one correction",
    },
    "rectified": {
        "none": "the step is not rectified",
        "above 4": "the step is rectified where ρ > 4 (RAdam, the paper)",
        "above 5": "the step is rectified where ρ > 5 (RAdam)",
    },
    "sign": {"none": "the step has its size", "sign": "only the sign of the step is taken"},
    "rescaled": {
        "none": "the step is not rescaled",
        "adadelta": "the step is rescaled by the root of past squared steps (Adadelta)",
    },
    "velocity": {
        "none": "there is no velocity",
        "trace": "the velocity is a decaying sum, μ b + d",
        "ema": "the velocity is a moving average, μ b + (1 - μ) d",
        "dampened": "the velocity is dampened, but for the first step (PyTorch)",
        "dampened at once": "the velocity is dampened from the first step on",
    },
    "rate_place": {
        "outside": "the learning rate multiplies the step",
        "inside": "the learning rate is inside the velocity",
    },
    "nesterov": {
        "none": "the step is the velocity",
        "standard": "the step is Nesterov's, d + μ b",
        "of the new": "Nesterov's step is computed with the new velocity where the old one belongs",
        "old": "the step is the velocity of the step before",
    },
    "trust": {
        "none": "there is no trust ratio",
        "lamb": "the step, with its decay, is scaled to the norm of each leaf's parameters (LAMB)",
        "lars": "the direction is scaled to the norm of each leaf's parameters (LARS)",
    },
    "counter": {
        "t": "the counter is 1 at the first step",
        "ahead": "the counter is 2 at the first step",
        "behind": "the counter is 0 at the first step: a division by 1 - β⁰ = 0",
        "stuck": "the counter never moves on from 1",
        "per leaf": "the counter moves on with every leaf, not with every step",
    },
    "rate": {
        "now": "the schedule is read at the number of steps done",
        "next": "the schedule is read one step ahead",
        "previous": "the schedule is read one step late",
        "over root t": "the learning rate falls with √t",
    },
    "direction": {"down": "the step goes down the gradient", "up": "the step has the wrong sign, up the gradient"},
}
START = {
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "momentum": 0.9,
    "dampening": 0.5,
    "weight_decay": 1e-2,
    "clip": 1.0,
    "trust": 1.0,
}
FIXED = {"clip", "trust"}


PAIRED = {  # axes on which both moments are usually treated alike: a choice for both is one mistake
    "first_correction": "second_correction",
    "first_used": "second_used",
    "first_kept": "second_kept",
}
SAME = {"m": "v"}  # values of other names on the second axis


class Edit(NamedTuple):
    """One difference from a form: another choice on an axis, or another start of a moment."""

    axis: str
    old: str
    new: str


def has(form: Form, axis: str) -> bool:
    """Whether the choice on an axis makes any difference to a form."""
    moments = form.first != "none"
    second = form.second != "none"
    sized = form.sign == "none" or second
    velocity = form.velocity != "none"
    corrected = {"t", "t + 1", "multiplied", "linear", "swapped"} & {form.first_correction, form.second_correction}
    return {
        "first_correction": moments and sized,
        "second": sized,
        "first_used": moments and form.first != "lion",
        "first_kept": moments,
        "second_correction": second,
        "second_used": second,
        "second_kept": second,
        "maximum": second,
        "root": second,
        "eps": second,
        "numerator": moments and form.first != "lion",
        "rectified": second and form.first_correction != "none",
        "rescaled": second,
        "rate_place": velocity,
        "nesterov": velocity,
        "counter": bool(corrected)
        or form.rectified != "none"
        or form.numerator == "nadam"
        or "mean" in (form.first, form.second),
    }.get(axis, True)


def makes_sense(form: Form, axis: str, value: str) -> bool:
    """Whether a choice is another than those beside it: without a correction, before and after it are the same."""
    corrected = {"first": form.first_correction, "second": form.second_correction}
    one = "none" in (form.first, form.second)
    same = {  # choices that come to the same as another, or to nothing
        ("first_kept", "corrected"): corrected["first"] == "none",
        ("second_kept", "corrected"): corrected["second"] == "none",
        ("first_correction", "swapped"): one,
        ("second_correction", "swapped"): one,
        ("maximum", "raw"): corrected["second"] == "none",
        ("eps", "before correction"): corrected["second"] == "none",
        ("eps", "inside before correction"): corrected["second"] == "none",
        ("eps", "floor"): form.second == "largest with eps",
        ("decay", "l2 in m"): one,
        ("decay", "divided"): form.second == "none",
        ("second", "of m"): form.first == "none",
        ("second", "on m"): form.first == "none",
        ("second", "with b1"): form.first == "none",
        ("second", "mixed"): form.first == "none",
        ("trust", "lamb"): form.decay != "decoupled",
    }
    return not same.get((axis, value), False)


def used(form: Form) -> list[str]:
    """The hyper-parameters that make a difference to a form."""
    second = form.second not in ("none", "sum", "mean")
    names = {
        "learning_rate": True,
        "b1": form.first not in ("none", "mean") or form.second in ("with b1", "mixed"),
        "b2": second or form.first in ("lion", "with b2", "mixed"),
        "eps": form.second != "none" and (form.eps != "none" or form.second == "largest with eps"),
        "momentum": form.velocity != "none",
        "dampening": "dampened" in form.velocity,
        "weight_decay": form.decay != "none",
        "clip": form.clip != "none",
        "trust": form.trust == "lars",
    }
    return [name for name, there in names.items() if there]


def edits(form: Form) -> Iterator[tuple[tuple[Edit, ...], Form]]:
    """All forms that differ in one choice, or in the same choice for both moments, with what differs."""
    for axis, values in AXES.items():
        if not has(form, axis):
            continue
        old = getattr(form, axis)
        for new in values:
            if new == old or not makes_sense(form, axis, new):
                continue
            other = PAIRED.get(axis)
            if other and has(form, other) and (both := SAME.get(new, new)) != getattr(form, other):
                yield (
                    (Edit(axis, old, new), Edit(other, getattr(form, other), both)),
                    form._replace(**{axis: new, other: both}),
                )
            yield (Edit(axis, old, new),), form._replace(**{axis: new})


def with_start(form: Form, hyper: Hyper) -> Hyper:
    """Hyper-parameters with a usual value where the form has one that they leave out."""
    missing = {
        name: START[name]
        for name in used(form)
        if name in START and (getattr(hyper, name) == 0 or not np.isfinite(getattr(hyper, name)))
    }
    return hyper._replace(**missing)


def differences(form: Form, other: Form) -> list[Edit]:
    """The choices in which another form differs, as far as they matter to it or to this one."""
    return [
        Edit(axis, getattr(form, axis), getattr(other, axis))
        for axis in AXES
        if getattr(form, axis) != getattr(other, axis) and (has(form, axis) or has(other, axis))
    ]
