"""Describe all choices of an update rule, and list the neighbours of a rule, which differ from it in one choice."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nnjax.optcheck.rules.update_rule import GRADIENT_DECAY, LAMB, LION, Formula, HyperParams, UpdateRule

ROUNDED_STORAGE = {
    "bfloat16": "the {} moment and {} are rounded to bfloat16",
    "bfloat16 stored": "the {} moment is stored in bfloat16",
    "float16": "the {} moment and {} are rounded to float16",
    "float16 stored": "the {} moment is stored in float16",
}
CHOICES: dict[str, dict[str, str]] = {
    "rounding": {
        "none": "gradients are not rounded",
        "bfloat16": "gradients are rounded to bfloat16",
        "float16": "gradients are rounded to float16, which overflows above 65504 and is 0 below 3e-8",
    },
    "variance": {
        "none": "the gradient is used unchanged",
        "mars": "the difference from the previous gradient is added to the gradient (MARS)",
    },
    "centre": {
        "none": "gradients are not centred",
        "rows": "the mean over all axes but the first is subtracted from gradients of matrices (centralised)",
    },
    "clip": {
        "none": "gradients are not clipped",
        "value": "gradients are clipped element by element",
        "global norm": "gradients are clipped by their global norm",
        "leaf norm": "gradients are clipped by the norm of each leaf",
        "unit leaf norm": "gradients are divided by the norm of each leaf, plus ε",
        "unit global norm": "gradients are divided by their global norm, plus ε",
        "step value": "the step is clipped element by element, before the learning rate",
        "step global norm": "the step is clipped by its global norm, before the learning rate",
        "step leaf norm": "the step is clipped by the norm of each leaf, before the learning rate",
    },
    "decay": {
        "none": "there is no weight decay",
        "decoupled": "weight decay times the learning rate is subtracted from the parameters (decoupled)",
        "l2": "weight decay is added to the gradient and passes through the moments (L2)",
        "l2 and decoupled": "weight decay is added to the gradient and also subtracted from the parameters",
        "l2 in m": "weight decay is added to the gradient of the first moment only",
        "l2 in v": "weight decay is added to the gradient of the second moment only",
        "l2 wrong sign": "weight decay is subtracted from the gradient instead of added (L2 with the wrong sign)",
        "l1": "weight decay times the sign of the parameters is added to the gradient (L1)",
        "preconditioned": "weight decay is added to the first moment in the step before the root or the sign",
        "after trust": "weight decay is added after the trust ratio",
        "in velocity": "weight decay is added to the step before the velocity",
        "without rate": "weight decay is not multiplied by the learning rate",
        "after update": "weight decay is computed from the parameters after the update",
        "wrong sign": "weight decay has the wrong sign, so parameters grow",
    },
    "first": {
        "none": "there is no first moment",
        "ema": "the first moment is a moving average, β₁ m + (1 - β₁) g",
        "trace": "the first moment is a decaying sum, β₁ m + g, without (1 - β₁)",
        "lion": "the step averages with β₁, and the stored moment with β₂ (Lion)",
        "lion trace": "the step averages with β₁, and the stored moment is a decaying sum, β₂ m + g",
        "lion new m": "the step averages with β₁ and the new stored moment instead of the old one",
        "with b2": "the first moment decays with β₂",
        "with power": "the first moment decays with β₁ᵗ instead of β₁",
        "another rate": "the first moment decays with β₃ instead of β₁",
        "mixed": "the first moment weights itself with β₁ and the gradient with (1 - β₂)",
        "swapped": "the first moment swaps β₁ and (1 - β₁)",
        "v for m": "the first moment is computed from v instead of m: β₁ v + (1 - β₁) g",
        "mean": "the first moment is the mean of all gradients so far",
        "ema from first": "the first moment is a moving average that starts with the first gradient",
        "gradient": "the bias correction divides the gradient itself instead of the first moment",
    },
    "first_correction": {
        "none": "the first moment has no bias correction",
        "t": "the first moment is divided by 1 - β₁ᵗ",
        "t + 1": "the first moment's correction is one step ahead, 1 - β₁ᵗ⁺¹",
        "constant": "the first moment is divided by the constant 1 - β₁ at every step",
        "multiplied": "the first moment is multiplied by 1 - β₁ᵗ instead of divided",
        "linear": "the first moment is divided by 1 - β₁·t, a product instead of a power",
        "power": "the first moment is divided by (1 - β₁)ᵗ instead of 1 - β₁ᵗ",
        "root": "the first moment is divided by √(1 - β₁ᵗ)",
        "squared": "the first moment is divided by (1 - β₁ᵗ)², so it is corrected twice",
        "swapped": "the first moment is divided by 1 - β₂ᵗ, the second moment's correction",
        "another rate": "the first moment is divided by 1 - β₃ᵗ instead of 1 - β₁ᵗ",
        "subtracted": "the first moment is m / 1 - β₁ᵗ, without parentheses, so β₁ᵗ is subtracted",
    },
    "first_lag": {
        "none": "the step uses the new first moment",
        "one step": "the step uses the first moment of the previous step",
    },
    "first_storage": {
        "raw": "the first moment is stored",
        "corrected": "the bias-corrected first moment is stored",
        "none": "the first moment is not stored and starts again at every step",
        **{name: text.format("first", "β₁ m") for name, text in ROUNDED_STORAGE.items()},
    },
    "second": {
        "none": "there is no second moment",
        "ema": "the second moment is a moving average of g²",
        "centered": "the second moment is centered, v - (mean of g)²",
        "centered old mean": "the second moment is centered with the mean of g before this step",
        "centered plus": "the squared mean of g is added to the second moment instead of subtracted",
        "trace": "the second moment is a decaying sum, without (1 - β₂)",
        "sum": "the second moment is the sum of all g²",
        "largest": "the second moment is max(β₂ v, |g|)",
        "largest of m": "the second moment is max(β₂ v, |m|) instead of max(β₂ v, |g|)",
        "largest weighted": "the second moment is max(β₂ v, (1 - β₂) |g|)",
        "largest with eps": "the second moment is max(β₂ v, |g| + ε)",
        "belief": "the second moment averages (g - m)² with the new m",
        "belief absolute": "the second moment averages |g - m| instead of (g - m)²",
        "belief plus": "the second moment averages (g + m)² instead of (g - m)²",
        "belief old m": "the second moment averages (g - m)² with m of the previous step",
        "yogi": "the second moment changes by (1 - β₂) g² towards g² (Yogi)",
        "yogi wrong sign": "the second moment changes by (1 - β₂) g² away from g² (Yogi with the wrong sign)",
        "absolute": "the second moment is a moving average of |g|, and the step divides by it",
        "absolute in root": "the second moment is a moving average of |g|, and the step divides by its root",
        "absolute sum": "the second moment is the sum of all |g|, and the step divides by its root",
        "largest square": "the second moment is max(v, g²), which never decreases",
        "cubed": "the second moment averages g³ instead of g²",
        "product": "the second moment averages g m instead of g²",
        "m squared": "the second moment is an average of m² instead of g²",
        "with b1": "the second moment decays with β₁",
        "with power": "the second moment decays with β₂ᵗ instead of β₂",
        "another rate": "the second moment decays with β₃ instead of β₂",
        "mixed": "the second moment weights itself with β₂ and g² with (1 - β₁)",
        "swapped": "the second moment swaps β₂ and (1 - β₂)",
        "m for v": "the second moment is computed from m instead of v: β₂ m + (1 - β₂) g²",
        "old m for v": "the second moment is computed from m of the previous step: β₂ m_old + (1 - β₂) g²",
        "mean": "the second moment is the mean of all g² so far",
        "gradient": "the second moment averages g instead of g², so its root is NaN for negative gradients",
        "ema from first": "the second moment is a moving average that starts with g² of the first step",
        "twice the gradient": "the second moment averages 2 g instead of g², so its root is NaN for negative gradients",
        "largest with sign": "the second moment is max(β₂ v, g), without the absolute value",
    },
    "second_scope": {
        "element": "each element has a second moment of its own",
        "leaf mean": "all elements of a leaf share a second moment, of the mean of their g²",
        "leaf norm": "all elements of a leaf share a second moment, of the sum of their g²",
        "global norm": "all elements share a second moment, of the sum of all g²",
    },
    "second_correction": {
        "none": "the second moment has no bias correction",
        "t": "the second moment is divided by 1 - β₂ᵗ",
        "t + 1": "the second moment's correction is one step ahead, 1 - β₂ᵗ⁺¹",
        "constant": "the second moment is divided by the constant 1 - β₂ at every step",
        "multiplied": "the second moment is multiplied by 1 - β₂ᵗ instead of divided",
        "linear": "the second moment is divided by 1 - β₂·t, a product instead of a power",
        "power": "the second moment is divided by (1 - β₂)ᵗ instead of 1 - β₂ᵗ",
        "squared": "the second moment is divided by (1 - β₂ᵗ)², a correction outside the root",
        "swapped": "the second moment is divided by 1 - β₁ᵗ, the first moment's correction",
        "another rate": "the second moment is divided by 1 - β₃ᵗ instead of 1 - β₂ᵗ",
        "subtracted": "the second moment is v / 1 - β₂ᵗ, without parentheses, so β₂ᵗ is subtracted",
    },
    "second_lag": {
        "none": "the step uses the new second moment",
        "one step": "the step uses the second moment of the previous step",
    },
    "second_storage": {
        "raw": "the second moment is stored",
        "corrected": "the bias-corrected second moment is stored",
        "none": "the second moment is not stored and starts again at every step",
        "root": "the root of the second moment is stored",
        **{name: text.format("second", "β₂ v") for name, text in ROUNDED_STORAGE.items()},
    },
    "maximum": {
        "none": "the second moment can decrease",
        "corrected": "the step uses the maximum of the bias-corrected second moments (AMSGrad, max of v̂)",
        "raw": "the step uses the maximum of the second moments, then corrects its bias (AMSGrad, max of v)",
        "in v": "the second moment is replaced by its maximum, max(v_old, v)",
        "minimum": "the step uses the minimum of the second moments and the initial 0, so always 0",
    },
    "root": {
        "sqrt": "the step divides by the root of the second moment",
        "none": "the root of the second moment is missing",
        "twice": "the root of the second moment is taken twice",
        "cube": "the step divides by the cube root of the second moment",
        "multiplied": "the step is multiplied by the root of the second moment instead of divided",
    },
    "eps": {
        "none": "there is no ε",
        "none with NaN": "there is no ε, so 0 / 0 gives NaN",
        "added to the step": "ε is added to the step instead of the root, as in λ m / √v + ε without parentheses",
        "outside": "ε is added outside the root, after the bias correction",
        "inside": "ε is added inside the root, after the bias correction",
        "inside and outside": "ε is added both inside and outside the root",
        "before correction": "ε is added outside the root before the bias correction (the paper's ε̂)",
        "inside before correction": "ε is added inside the root before the bias correction",
        "after division": "ε is added after the division, 1/√v + ε",
        "floor": "ε is the lower bound of the root, max(√v, ε)",
        "in state": "ε is added to the stored second moment, so it accumulates, and also outside the root",
        "in state only": "ε is added to the stored second moment, so it accumulates, but not outside the root",
    },
    "numerator": {
        "m": "the step follows the first moment",
        "nadam": "the step looks ahead with Nesterov's corrections (NAdam)",
        "nadam without correction": "the step looks ahead as in NAdam, but (1 - β₁) g is not corrected",
        "nadam without b1": "the step looks ahead as in NAdam, but the first moment is not multiplied by β₁",
        "nadam with raw m": "the step looks ahead as in NAdam, but the first moment is not corrected",
        "nadam with full gradient": "the step looks ahead as in NAdam, but the gradient is not multiplied by (1 - β₁)",
        "nadam without gradient": "the step looks ahead as in NAdam, but without the gradient",
        "lookahead": "the step looks ahead, β₁ m + (1 - β₁) g, with one correction for both terms",
        "lookahead without correction": "the step looks ahead, and only the first moment is corrected",
    },
    "rectification": {
        "none": "the step is not rectified",
        "above 4": "the step is rectified if ρ > 4 (RAdam, the paper)",
        "above 5": "the step is rectified if ρ > 5 (RAdam)",
        "raw m below": "the step is rectified if ρ > 5 (RAdam), else it is the first moment without bias correction",
        "no step below": "the step is rectified if ρ > 5 (RAdam), else there is no step",
        "without root": "the step is rectified if ρ > 5 (RAdam) by r² instead of r, without the root",
        "wrong limit": "the step is rectified if ρ > 5 (RAdam) with the limit ρ = 2 / (1 - β₂), without - 1",
    },
    "sign": {
        "none": "the step keeps its size",
        "sign": "the step uses only the sign",
        "tanh": "the step is the hyperbolic tangent of its size",
    },
    "rescaling": {
        "none": "the step is not rescaled",
        "adadelta": "the step is rescaled by the root of past squared steps (Adadelta)",
        "adadelta with eps outside": "the step is rescaled by the root of past squared steps, with ε outside this root",
        "adadelta of gradients": "the step is rescaled by the root of past squared gradients instead of steps",
        "adadelta sum": "the step is rescaled by the root of the sum of past squared steps",
        "adadelta trace": "the step is rescaled by the root of a decaying sum of past squared steps, without (1 - β₂)",
        "adadelta without root": "the step is rescaled by past squared steps without their root",
        "adadelta ahead": "the step is rescaled by the root of squared steps that include the current one",
    },
    "velocity": {
        "none": "there is no velocity",
        "trace": "the velocity is a decaying sum, μ b + d",
        "ema": "the velocity is a moving average, μ b + (1 - μ) d",
        "dampened": "the velocity is dampened except at the first step (PyTorch)",
        "dampened at once": "the velocity is dampened from the first step",
    },
    "velocity_storage": {
        "raw": "the velocity is stored",
        "bfloat16": "the velocity and μ b are rounded to bfloat16",
        "bfloat16 stored": "the velocity is stored in bfloat16",
        "float16": "the velocity and μ b are rounded to float16",
        "float16 stored": "the velocity is stored in float16",
    },
    "rate_position": {
        "outside": "the learning rate multiplies the step",
        "inside": "the learning rate is inside the velocity",
        "twice": "the learning rate is inside the velocity and also multiplies the step",
    },
    "nesterov": {
        "none": "the step is the velocity",
        "standard": "the step is Nesterov's, d + μ b",
        "new velocity": "Nesterov's step uses the new velocity instead of the old one",
        "and gradient": "the step is the velocity plus the gradient, d + b",
        "old velocity": "the step is the velocity of the previous step",
        "without gradient": "the step is μ b, without the gradient",
        "old velocity added": "the step is (1 + μ) b + μ b_old, so the old velocity is added instead of subtracted",
        "one minus": "the step is (1 - μ) b - μ b_old instead of (1 + μ) b - μ b_old",
    },
    "trust": {
        "none": "there is no trust ratio",
        "lamb": "the step, with its decay, is scaled to the norm of each leaf's parameters (LAMB)",
        "lamb clipped": "the step is scaled to the norm of each leaf's parameters, but at most to 10 (LAMB)",
        "lamb inverted": "the step is divided by the trust ratio instead of multiplied (LAMB)",
        "lars": "the direction is scaled to the norm of each leaf's parameters (LARS)",
    },
    "counter": {
        "t": "the counter is 1 at the first step",
        "ahead": "the counter is 2 at the first step",
        "behind": "the counter is 0 at the first step, so corrections divide by 1 - β⁰ = 0",
        "stuck": "the counter stays at 1",
        "double": "the counter increases by 2 at every step",
        "per leaf": "the counter increases with every leaf instead of every step",
    },
    "schedule": {
        "current": "the schedule is read at the current step",
        "next": "the schedule is read one step ahead",
        "previous": "the schedule is read one step late",
        "inverse root": "the learning rate decreases with 1/√t",
        "inverse": "the learning rate decreases with 1/t",
        "inverse time": "the learning rate is divided by 1 + κ (t - 1)",
        "exponential": "the learning rate is multiplied by (1 - κ)ᵗ⁻¹",
        "warm-up": "the learning rate is multiplied by min(1, κ t)",
        "linear": "the learning rate decreases linearly, by a factor of 1 - κ (t - 1)",
        "cosine": "the learning rate decreases as a cosine, by a factor of ½ (1 + cos(π κ (t - 1)))",
        "stepwise": "the learning rate is multiplied by 1 - κ after every n steps",
    },
    "direction": {"down": "the step goes down the gradient", "up": "the step goes up the gradient (wrong sign)"},
}
USUAL_VALUES = {
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "momentum": 0.9,
    "dampening": 0.5,
    "weight_decay": 1e-2,
    "clip": 1.0,
    "trust": 1.0,
    "gamma": 0.025,
    "rate_decay": 1e-3,
    "period": 10.0,
}
DECAYING = ("ema", "ema from first", "trace", "belief", "absolute", "m squared")  # second moments that decay as β₂ v
BOTH_MOMENTS = {  # usually chosen together: the same change to both moments counts as one mistake, not two
    "first_correction": "second_correction",
    "first_lag": "second_lag",
    "first_storage": "second_storage",
}


FEATURES = ("rounding", "variance", "centre", "rectification", "rescaling", "trust", "velocity", "velocity_storage")
RARE = {  # choices that are intended, or rare as one of three mistakes
    ("first", "lion"), ("first", "lion trace"), ("first", "mean"), ("first", "v for m"), ("first_correction", "root"),
    ("first_correction", "another rate"), ("second", "centered"), ("second", "largest"),
    ("second", "largest with eps"), ("second", "yogi"), ("second", "yogi wrong sign"), ("second", "mean"),
    ("second", "belief old m"), ("second", "m for v"), ("second", "old m for v"), ("second_correction", "squared"),
    ("second_correction", "another rate"), ("second_storage", "root"), ("root", "twice"), ("numerator", "nadam"),
    ("eps", "in state"), ("eps", "in state only"), ("eps", "inside before correction"), ("counter", "per leaf"),
    ("first", "lion new m"), ("first", "with power"), ("first_correction", "squared"), ("second", "cubed"),
    ("second", "product"), ("second", "with power"), ("second", "largest square"), ("root", "multiplied"),
    ("numerator", "nadam without correction"), ("clip", "unit leaf norm"), ("clip", "unit global norm"),
    ("counter", "double"), ("schedule", "next"), ("schedule", "warm-up"), ("schedule", "linear"),
    ("schedule", "cosine"), ("schedule", "previous"), ("schedule", "stepwise"), ("first_correction", "subtracted"),
    ("second_correction", "subtracted"), ("clip", "step value"), ("clip", "step global norm"),
    ("clip", "step leaf norm"), ("second_scope", "global norm"), ("second_scope", "leaf norm"), ("maximum", "minimum"),
    ("sign", "tanh"), ("second", "twice the gradient"), ("second", "largest with sign"), ("first", "gradient"),
    ("second", "belief absolute"), ("second", "belief plus"),
    ("rate_position", "twice"), ("decay", "l2 and decoupled"), ("decay", "after trust"), ("eps", "added to the step"),
    ("second", "centered old mean"), ("second", "centered plus"), ("second", "largest of m"),
    ("second", "largest weighted"), ("numerator", "nadam without b1"), ("numerator", "nadam with raw m"),
    ("numerator", "nadam with full gradient"), ("numerator", "nadam without gradient"),
    ("second_scope", "leaf mean"), ("first", "ema from first"), ("second", "ema from first"), ("decay", "in velocity"),
}  # fmt: skip


WRONG_ADADELTA = [choice for choice in CHOICES["rescaling"] if choice.partition(" ")[2] not in ("", "with eps outside")]


class Edit(NamedTuple):
    """A change to one choice of a rule."""

    place: str  # a field of the rule, or `families.RULE`
    old: str
    new: str


class Neighbour(NamedTuple):
    """A rule and the edits that lead to it from the original rule."""

    edits: tuple[Edit, ...]
    rule: UpdateRule


def is_rare(edit: Edit) -> bool:
    """Return True if a choice adds a feature or a number format, which is rarely one of three mistakes."""
    added = edit.place in FEATURES and edit.old in ("none", "raw")
    return added or "float16" in edit.new or (edit.place, edit.new) in RARE


def is_relevant(rule: UpdateRule, place: str) -> bool:
    """Return True if the choice at a place affects the updates of a rule and is a plausible mistake."""
    return _relevance(rule).get(place, True)


def _relevance(rule: UpdateRule) -> dict[str, bool]:
    """Return whether each place affects the updates of a rule; places that always do are missing."""
    first = rule.first != "none"
    second = rule.second != "none"
    has_size = rule.sign != "sign" or second
    velocity = rule.velocity != "none"
    corrected = {rule.first_correction, rule.second_correction} - {"none", "constant"}
    return {
        "variance": rule.variance != "none",  # not a plausible mistake in rules other than MARS
        "first_correction": first and has_size,
        "second": has_size,
        "first_lag": first and rule.first not in LION,
        "first_storage": first,
        "second_correction": second,
        "second_lag": second,
        "second_scope": rule.second in ("ema", "ema from first", "trace", "sum", "mean"),
        "second_storage": second,
        "maximum": second,
        "root": second,
        "eps": second,
        "numerator": first and rule.first not in LION,
        "rectification": second and rule.first_correction != "none",
        "rescaling": second,
        "velocity_storage": velocity,
        "rate_position": velocity,
        "nesterov": velocity,
        "counter": bool(corrected)
        or rule.rectification != "none"
        or "nadam" in rule.numerator
        or {"mean", "with power"} & {rule.first, rule.second} != set(),
    }


def _duplicates(rule: UpdateRule) -> set[tuple[str, str]]:
    """Return the choices that have no effect on a rule, or the same effect as a different choice."""
    velocity = rule.velocity != "none"
    one_moment = "none" in (rule.first, rule.second)
    no_correction = rule.second_correction == "none"
    no_first_correction = rule.first_correction == "none"
    is_gradient = (rule.first, rule.second, rule.velocity, rule.sign) == ("none",) * 4
    duplicates = {
        **{
            ("clip", f"step {name}"): is_gradient and rule.decay not in GRADIENT_DECAY
            for name in ("value", "global norm", "leaf norm")
        },
        ("first_storage", "bfloat16"): rule.first not in ("ema", "trace"),
        ("first_storage", "float16"): rule.first not in ("ema", "trace"),
        ("second_storage", "bfloat16"): rule.second not in DECAYING,
        ("second_storage", "float16"): rule.second not in DECAYING,
        ("first_storage", "corrected"): rule.first_correction == "none",
        ("second_storage", "corrected"): no_correction,
        ("first", "another rate"): no_first_correction,  # the same as a different β₁
        ("first", "v for m"): rule.second == "none",
        ("first", "gradient"): no_first_correction,
        ("second", "another rate"): no_correction,  # the same as a different β₂
        ("numerator", "lookahead without correction"): no_first_correction,
        ("first_correction", "swapped"): one_moment,
        ("second_correction", "swapped"): one_moment,
        ("maximum", "raw"): no_correction,
        ("rectification", "raw m below"): no_first_correction,
        ("eps", "before correction"): no_correction,
        ("eps", "inside before correction"): no_correction,
        ("eps", "floor"): rule.second == "largest with eps",
        ("decay", "l2 in m"): one_moment,
        ("decay", "l2 in v"): one_moment,
        ("decay", "in velocity"): not velocity or (one_moment and rule.first == rule.second),
        ("decay", "preconditioned"): rule.second == "none" and rule.sign == "none",
        ("second", "m squared"): rule.first == "none",
        ("second", "product"): rule.first == "none",
        ("second", "largest of m"): rule.first == "none",
        ("second", "m for v"): rule.first == "none",
        ("second", "old m for v"): rule.first == "none",
        ("second", "with b1"): rule.first == "none",
        ("second", "mixed"): rule.first == "none",
        **{("rescaling", choice): rule.rescaling == "none" for choice in WRONG_ADADELTA},
        ("decay", "after trust"): rule.trust not in LAMB,
        **{("trust", trust): rule.trust not in LAMB for trust in LAMB if trust != "lamb"},
        ("trust", "lamb"): rule.decay != "decoupled" and rule.second == "none",  # the same as LARS
        ("trust", "lars"): rule.decay == "none" and rule.second != "none",
    }
    return {choice for choice, is_duplicate in duplicates.items() if is_duplicate}


def hyper_names(rule: UpdateRule) -> list[str]:
    """Return the names of hyper-parameters that affect a rule, except those that are usually zero."""
    second = rule.second not in ("none", "sum", "absolute sum", "largest square", "mean")
    names = {
        "learning_rate": True,
        "b1": rule.first not in ("none", "mean") or rule.second in ("with b1", "mixed"),
        "b2": second or rule.rescaling != "none" or rule.first in (*LION, "with b2", "mixed"),
        "eps": (rule.second != "none" and (not rule.eps.startswith("none") or rule.second == "largest with eps"))
        or "unit" in rule.clip,
        "momentum": rule.velocity != "none",
        "dampening": "dampened" in rule.velocity,
        "weight_decay": rule.decay != "none",
        "clip": rule.clip != "none" and "unit" not in rule.clip,
        "trust": rule.trust == "lars",
        "gamma": rule.variance != "none",
        "b3": "another rate" in (rule.first, rule.first_correction, rule.second, rule.second_correction),
        "rate_decay": rule.schedule in ("inverse time", "exponential", "warm-up", "linear", "cosine", "stepwise"),
        "period": rule.schedule == "stepwise",
    }
    return [name for name, relevant in names.items() if relevant]


def neighbours(rule: UpdateRule) -> Iterator[Neighbour]:
    """Yield all rules that differ from this one in one choice, or in the same choice for both moments."""
    relevance, duplicates = _relevance(rule), _duplicates(rule)
    for place, choices in CHOICES.items():
        if not relevance.get(place, True):
            continue
        old = getattr(rule, place)
        for new in choices:
            if new == old or (place, new) in duplicates:
                continue
            edit, twin = Edit(place, old, new), BOTH_MOMENTS.get(place, "")
            if relevance.get(twin, True) and new in CHOICES.get(twin, {}) and new != getattr(rule, twin):
                edits = (edit, Edit(twin, getattr(rule, twin), new))
                yield Neighbour(edits, rule._replace(**{place: new, twin: new}))
            yield Neighbour((edit,), rule._replace(**{place: new}))


def with_usual_values(rule: UpdateRule, hyper: HyperParams) -> Formula:
    """Return the rule with these hyper-parameters; usual values replace those that are zero or infinite."""
    missing = {
        name: USUAL_VALUES[name]
        for name in hyper_names(rule)
        if name in USUAL_VALUES and (getattr(hyper, name) == 0 or not np.isfinite(getattr(hyper, name)))
    }
    return Formula(rule, hyper._replace(**missing))


def edits_between(rule: UpdateRule, target: UpdateRule) -> list[Edit]:
    """Return the edits that turn a rule into a target and affect at least one of them."""
    return [
        Edit(place, getattr(rule, place), getattr(target, place))
        for place in CHOICES
        if getattr(rule, place) != getattr(target, place) and (is_relevant(rule, place) or is_relevant(target, place))
    ]
