"""Define ADOPT (Taniguchi et al. 2024): gradients are divided by the previous second moment, and then averaged."""

from typing import NamedTuple

import numpy as np

from nnjax.optcheck.rules.equations import numbers
from nnjax.optcheck.rules.named.family import (
    DECAY,
    DECAY_TEXT,
    EPS,
    EPS_TEXT,
    Family,
    Memory,
    Step,
    decayed,
    divide,
    root_of,
)
from nnjax.optcheck.rules.update_rule import Formula, HyperParams


class AdoptRule(NamedTuple):
    """The choices of ADOPT, with the defaults of the paper's second version."""

    start: str = "second moment"
    second: str = "previous"
    clip: str = "fourth root"
    first: str = "ema"
    nesterov: str = "none"
    eps: str = "floor"
    decay: str = "none"


CHOICES = {
    "start": {
        "second moment": "the first step only starts the second moment, v ← g²",
        "zero": "the second moment starts at 0, and the first step changes the parameters",
    },
    "second": {
        "previous": "gradients are divided by the second moment of the previous step",
        "current": "gradients are divided by the second moment of this step, as in Adam",
    },
    "clip": {
        "fourth root": "normalised gradients are clipped to ±(step - 1)^¼",
        "counted from 1": "normalised gradients are clipped to ±step^¼",
        "none": "normalised gradients are not clipped",
    },
    "first": {
        "ema": "the first moment is a moving average, β₁ m + (1 - β₁) ĝ",
        "trace": "the first moment is a decaying sum, β₁ m + ĝ",
    },
    "nesterov": {"none": "the step is the first moment", "standard": "the step looks ahead, β₁ m + (1 - β₁) ĝ"},
    "eps": EPS,
    "decay": DECAY,
}


def _hyper_names(rule: AdoptRule) -> list[str]:
    return ["learning_rate", "b1", "b2", "eps", *(["weight_decay"] if rule.decay != "none" else [])]


def _step(rule: AdoptRule, h: HyperParams, memory: Memory, s: Step) -> tuple[np.ndarray, Memory]:
    g = s.g + h.weight_decay * s.p if rule.decay == "l2" else s.g
    m, v = memory.get("m", s.zero), memory.get("v", s.zero)
    starts = s.t == 1 and rule.start == "second moment"
    v_new = s.zero + g**2 if starts else h.b2 * v + (1 - h.b2) * g**2
    u = s.zero
    if not starts:
        g_hat = divide(s.zero + g, root_of(v if rule.second == "previous" else v_new, rule.eps, h))
        bound = {"fourth root": (s.t - 1) ** 0.25, "counted from 1": s.t**0.25, "none": np.inf}[rule.clip]
        g_hat = np.clip(g_hat, -bound, bound)
        m = h.b1 * m + (g_hat if rule.first == "trace" else (1 - h.b1) * g_hat)
        u = h.b1 * m + (1 - h.b1) * g_hat if rule.nesterov == "standard" else m
    return decayed(rule.decay, -s.rate * u, h, s), {"m": m, "v": v_new}


def _equations(formula: Formula) -> list[str]:
    rule, hyper = formula
    v = "v_old" if rule.second == "previous" else "v"
    clip = {"fourth root": ", clipped to ±(t - 1)^¼", "counted from 1": ", clipped to ±t^¼", "none": ""}[rule.clip]
    m = "β₁ m + ĝ" if rule.first == "trace" else "β₁ m + (1 - β₁) ĝ"
    step = "(β₁ m + (1 - β₁) ĝ)" if rule.nesterov == "standard" else "m"
    return [
        *(["g ← g + w θ"] if rule.decay == "l2" else []),
        "v ← β₂ v + (1 - β₂) g²" + (" (first step: v ← g² only)" if rule.start == "second moment" else ""),
        f"ĝ = g / {EPS_TEXT[rule.eps].format(v=v)}{clip}",
        f"m ← {m}",
        f"θ ← θ - λ {step}{DECAY_TEXT.get(rule.decay, '')}",
        "t = 1, 2, …",
        numbers(_hyper_names(rule), hyper),
    ]


ADOPT = Family("ADOPT", CHOICES, _hyper_names, _step, _equations)
