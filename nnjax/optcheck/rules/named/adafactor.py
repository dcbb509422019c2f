"""Define Adafactor (Shazeer and Stern 2018), as in the paper, in optax and in PyTorch."""

from typing import NamedTuple

import numpy as np

from nnjax.optcheck.rules.equations import numbers
from nnjax.optcheck.rules.named.family import (
    DECAY,
    DECAY_TEXT,
    Family,
    Memory,
    Step,
    block,
    decayed,
    divide,
    leaf_rms,
)
from nnjax.optcheck.rules.update_rule import Formula, HyperParams


class AdafactorRule(NamedTuple):
    """The choices of Adafactor, with the defaults of the paper."""

    factored: str = "matrices"
    eps: str = "added"
    normalised: str = "mean of rows"
    second: str = "power"
    clip: str = "rms"
    scale: str = "parameters"
    rate: str = "constant"
    first: str = "none"
    decay: str = "none"


CHOICES = {
    "factored": {
        "matrices": "second moments of matrices are factored into rows and columns",
        "none": "second moments are not factored",
    },
    "eps": {
        "added": "ε₁ is added to g²",
        "floor": "ε₁ is the lower bound of the mean of rows, and ε₁² of the second moment (PyTorch)",
        "none": "there is no ε₁",
    },
    "normalised": {
        "mean of rows": "rows times columns are divided by the mean of rows",
        "none": "rows times columns are not divided by the mean of rows",
    },
    "second": {
        "power": "the second moment decays with 1 - t^-κ",
        "power ahead": "the second moment decays with 1 - (t + 1)^-κ, one step ahead",
        "constant": "the second moment decays with a constant β₂",
    },
    "clip": {
        "rms": "steps whose root mean square is above a bound are scaled down, leaf by leaf",
        "none": "steps are not clipped",
    },
    "scale": {
        "parameters": "steps are multiplied by the root mean square of the leaf's parameters",
        "none": "steps are not multiplied by the size of the parameters",
    },
    "rate": {
        "constant": "the learning rate is used unchanged",
        "at most inverse root": "the learning rate is at most 1/√t (PyTorch)",
    },
    "first": {"none": "there is no first moment", "ema": "the first moment averages the steps"},
    "decay": DECAY,
}


def _is_relevant(rule: AdafactorRule, place: str) -> bool:
    return place != "normalised" or rule.factored != "none"


def _hyper_names(rule: AdafactorRule) -> list[str]:
    used = {
        "learning_rate": True,
        "b1": rule.first != "none",
        "b2": rule.second == "constant",
        "power": rule.second != "constant",
        "eps": rule.eps != "none",
        "clip": rule.clip != "none",
        "floor": rule.scale != "none",
        "weight_decay": rule.decay != "none",
    }
    return [name for name, is_used in used.items() if is_used]


def _step(rule: AdafactorRule, h: HyperParams, memory: Memory, s: Step) -> tuple[np.ndarray, Memory]:
    g = s.zero + (s.g + h.weight_decay * s.p if rule.decay == "l2" else s.g)
    t = s.t + 1 if rule.second == "power ahead" else s.t
    b2 = h.b2 if rule.second == "constant" else 1 - float(t) ** -h.power
    squares = g**2 + (h.eps if rule.eps == "added" else 0.0)
    v = b2 * memory.get("v", s.zero) + (1 - b2) * squares  # its row and column means equal the stored factors
    estimate = s.zero + v
    for leaf in s.leaves if rule.factored == "matrices" else ():
        if len(leaf[1]) >= 2:
            estimate[..., leaf[0]] = _factored(rule, h, block(v, leaf)).reshape(estimate[..., leaf[0]].shape)
    if rule.eps == "floor":
        estimate = np.maximum(estimate, h.eps**2)
    u = divide(g, np.sqrt(estimate))
    if rule.clip == "rms":
        u = u / np.maximum(1.0, leaf_rms(u, s) / h.clip)
    rate = np.minimum(s.rate, s.t**-0.5) if rule.rate == "at most inverse root" else s.rate
    u = rate * u * (np.maximum(leaf_rms(s.zero + s.p, s), h.floor) if rule.scale == "parameters" else 1.0)
    m = s.zero
    if rule.first == "ema":
        u = m = h.b1 * memory.get("m", s.zero) + (1 - h.b1) * u
    return decayed(rule.decay, -u, h, s), {"v": v, "m": m}


def _factored(rule: AdafactorRule, h: HyperParams, v: np.ndarray) -> np.ndarray:
    """Return the second moment reconstructed from the means of its rows and columns."""
    rows, columns = v.mean(-1, keepdims=True), v.mean(-2, keepdims=True)
    if rule.normalised == "none":
        return rows * columns
    mean = rows.mean(-2, keepdims=True)
    if rule.eps == "floor":
        mean = np.maximum(mean, h.eps if np.ndim(h.eps) == 0 else h.eps.reshape(-1, *(1,) * (v.ndim - 1)))
    return rows * columns / mean


def _equations(formula: Formula) -> list[str]:
    rule, hyper = formula
    b2 = {"power": "1 - t^-κ", "power ahead": "1 - (t + 1)^-κ", "constant": ""}[rule.second]
    mean = {"mean of rows": " / mean(rows)", "none": ""}[rule.normalised]
    mean = " / max(mean(rows), ε)" if mean and rule.eps == "floor" else mean
    factored = f"v̂ = rows(v) columns(v){mean} in matrices, v elsewhere" if rule.factored == "matrices" else "v̂ = v"
    rate = "min(λ, 1/√t)" if rule.rate == "at most inverse root" else "λ"
    scale = " max(RMS(θ), ε₂)" if rule.scale == "parameters" else ""
    root = "√max(v̂, ε²)" if rule.eps == "floor" else "√v̂"
    last = "m" if rule.first == "ema" else f"{rate}{scale} u"
    return [
        *(["g ← g + w θ"] if rule.decay == "l2" else []),
        *([f"β₂ = {b2}"] if b2 else []),
        f"v ← β₂ v + (1 - β₂) {'(g² + ε)' if rule.eps == 'added' else 'g²'}",
        factored,
        f"u = g / {root}",
        *(["u ← u / max(1, RMS(u)/c)"] if rule.clip == "rms" else []),
        *([f"m ← β₁ m + (1 - β₁) {rate}{scale} u"] if rule.first == "ema" else []),
        f"θ ← θ - {last}{DECAY_TEXT.get(rule.decay, '')}",
        "t = 1, 2, …",
        numbers(_hyper_names(rule), hyper),
    ]


ADAFACTOR = Family("Adafactor", CHOICES, _hyper_names, _step, _equations, _is_relevant, by_leaf=True)
