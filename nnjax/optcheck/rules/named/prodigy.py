"""Define Prodigy (Mishchenko and Defazio 2023), AdamW with a rate scaled by the estimated distance to the solution."""

from typing import NamedTuple

import numpy as np

from nnjax.optcheck.rules.equations import numbers
from nnjax.optcheck.rules.named.family import DECAY, DECAY_TEXT, Family, Memory, Step, divide
from nnjax.optcheck.rules.update_rule import Formula, HyperParams


class ProdigyRule(NamedTuple):
    """The choices of Prodigy, with the defaults of its authors' code."""

    correction: str = "none"
    moments: str = "scaled"
    distance: str = "largest"
    sums: str = "with rate"
    used: str = "old"
    scope: str = "all leaves"
    decay: str = "none"


CHOICES = {
    "correction": {
        "none": "the moments have no bias correction",
        "t": "the learning rate has the bias correction √(1 - β₂ᵗ)/(1 - β₁ᵗ)",
    },
    "moments": {
        "scaled": "the moments average d g",
        "plain": "the moments average g without d",
    },
    "distance": {
        "largest": "the estimate d never decreases",
        "latest": "the estimate d can decrease",
        "fixed": "the estimate d is never updated",
    },
    "sums": {
        "with rate": "the weights of the sums contain the learning rate",
        "without rate": "the weights of the sum of gradients do not contain the learning rate (safeguarded warm-up)",
    },
    "used": {"old": "the step uses the estimate d of the previous step", "new": "the step uses the new estimate d"},
    "scope": {
        "all leaves": "there is one estimate d for all leaves",
        "each leaf": "each leaf has its own estimate d",
    },
    "decay": {name: DECAY[name] for name in ("none", "decoupled", "without rate")},
}


def _hyper_names(rule: ProdigyRule) -> list[str]:
    decay = ["weight_decay"] if rule.decay != "none" else []
    return ["learning_rate", "b1", "b2", "b3", "eps", "distance", *decay]


def _step(rule: ProdigyRule, h: HyperParams, memory: Memory, s: Step) -> tuple[np.ndarray, Memory]:
    total = _total_of_leaves if rule.scope == "each leaf" else _total
    first, d = memory.get("first", s.p), memory.get("d", s.zero + h.distance)
    correction = np.sqrt(1 - h.b2**s.t) / (1 - h.b1**s.t) if rule.correction == "t" else 1.0
    rate, g = d * s.rate * correction, s.zero + s.g
    scaled = d * g if rule.moments == "scaled" else g
    m = h.b1 * memory.get("m", s.zero) + (1 - h.b1) * scaled
    v = h.b2 * memory.get("v", s.zero) + (1 - h.b2) * scaled**2
    weight = d if rule.sums == "without rate" else rate
    sums = h.b3 * memory.get("sums", s.zero) + weight * d * g / h.distance
    numerator = h.b3 * memory.get("numerator", s.zero) + d / h.distance * rate * total(g * (first - s.p), s)
    estimate = np.nan_to_num(numerator / total(np.abs(sums), s))
    new = {"largest": np.maximum(d, estimate), "latest": estimate, "fixed": d}[rule.distance]
    rate = new * s.rate * correction if rule.used == "new" else rate
    u = -rate * divide(m, np.sqrt(v) + (new * h.eps if rule.moments == "scaled" else h.eps))
    if rule.decay != "none":
        u = u - (rate if rule.decay == "decoupled" else 1.0) * h.weight_decay * s.p
    return u, {"first": first, "d": new, "m": m, "v": v, "sums": sums, "numerator": numerator}


def _total(array: np.ndarray, s: Step) -> np.ndarray:
    return s.zero + array.sum(-1, keepdims=True)


def _total_of_leaves(array: np.ndarray, s: Step) -> np.ndarray:
    out = np.empty_like(s.zero)
    for place, _ in s.leaves:
        out[..., place] = array[..., place].sum(-1, keepdims=True)
    return out


def _equations(formula: Formula) -> list[str]:
    rule, hyper = formula
    g, eps = ("d g", "d ε") if rule.moments == "scaled" else ("g", "ε")
    rate = "d λ √(1 - β₂ᵗ)/(1 - β₁ᵗ)" if rule.correction == "t" else "d λ"
    new = {"largest": "max(d, r / ‖s‖₁)", "latest": "r / ‖s‖₁", "fixed": "d"}[rule.distance]
    return [
        f"η = {rate}" + (", with the new d in the step" if rule.used == "new" else ""),
        f"m ← β₁ m + (1 - β₁) {g}",
        f"v ← β₂ v + (1 - β₂) ({g})²",
        f"s ← β₃ s + (d/d₀) {'d' if rule.sums == 'without rate' else 'η'} g",
        "r ← β₃ r + (d/d₀) η ⟨g, θ₀ - θ⟩" + (", in each leaf" if rule.scope == "each leaf" else ""),
        f"d ← {new}, initially d₀",
        f"θ ← θ - η m / (√v + {eps}){DECAY_TEXT.get(rule.decay, '').replace('λ', 'η')}",
        "t = 1, 2, …",
        numbers(_hyper_names(rule), hyper),
    ]


PRODIGY = Family("Prodigy", CHOICES, _hyper_names, _step, _equations, by_leaf=True, by_tree=True)
