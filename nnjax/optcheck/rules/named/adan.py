"""Define Adan, adaptive Nesterov momentum (Xie et al. 2022), as in its authors' code and in optax."""

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


class AdanRule(NamedTuple):
    """The choices of Adan, with the defaults of its authors' code."""

    difference: str = "zero first"
    weight: str = "decay rate"
    squared: str = "looks ahead"
    correction: str = "all"
    eps: str = "outside"
    decay: str = "none"


CHOICES = {
    "difference": {
        "zero first": "the first difference of gradients is 0",
        "gradient first": "the first difference of gradients is the first gradient itself",
        "reversed": "the difference of gradients has the wrong sign, old minus new",
    },
    "weight": {
        "decay rate": "differences are weighted with the decay rate β₂",
        "complement": "differences are weighted with 1 - β₂",
        "one": "differences are not weighted",
        "none": "the average of differences is not part of the step",
    },
    "squared": {
        "looks ahead": "the second moment averages the square of the gradient plus the weighted difference",
        "gradient": "the second moment averages the squared gradient alone",
        "with weight one": "the second moment averages the square of the gradient plus the unweighted difference",
    },
    "correction": {
        "all": "all three averages have a bias correction",
        "none": "no average has a bias correction",
        "not m": "the average of gradients has no bias correction",
        "not d": "the average of differences has no bias correction",
        "not n": "the second moment has no bias correction",
    },
    "eps": EPS,
    "decay": DECAY | {"proximal": "weight decay divides the updated parameters by 1 + λ w (proximal)"},
}


def _hyper_names(rule: AdanRule) -> list[str]:
    return ["learning_rate", "b1", "b2", "b3", "eps", *(["weight_decay"] if rule.decay != "none" else [])]


def _step(rule: AdanRule, h: HyperParams, memory: Memory, s: Step) -> tuple[np.ndarray, Memory]:
    g = s.g + h.weight_decay * s.p if rule.decay == "l2" else s.g
    old = memory.get("g", s.zero if rule.difference == "gradient first" else g)
    difference = old - g if rule.difference == "reversed" else g - old
    weight = {"decay rate": h.b2, "complement": 1 - h.b2, "one": 1.0, "none": 0.0}[rule.weight]
    inner = {"looks ahead": h.b2 if rule.weight in ("one", "none") else weight, "gradient": 0.0, "with weight one": 1.0}
    m = h.b1 * memory.get("m", s.zero) + (1 - h.b1) * g
    d = h.b2 * memory.get("d", s.zero) + (1 - h.b2) * difference
    n = h.b3 * memory.get("n", s.zero) + (1 - h.b3) * (g + inner[rule.squared] * difference) ** 2
    plain = {"all": "", "none": "mdn"}.get(rule.correction, rule.correction[-1])
    m_hat, d_hat, n_hat = (
        x if name in plain else x / (1 - b**s.t) for name, x, b in (("m", m, h.b1), ("d", d, h.b2), ("n", n, h.b3))
    )
    u = -s.rate * divide(m_hat + weight * d_hat, root_of(n_hat, rule.eps, h))
    return decayed(rule.decay, u, h, s), {"g": g, "m": m, "d": d, "n": n}


def _equations(formula: Formula) -> list[str]:
    rule, hyper = formula
    weight = {"decay rate": "β₂ ", "complement": "(1 - β₂) ", "one": "", "none": None}[rule.weight]
    inner = "β₂ " if rule.weight in ("one", "none") else weight
    squared = {"looks ahead": f"(g + {inner}Δ)²", "gradient": "g²", "with weight one": "(g + Δ)²"}[rule.squared]
    plain = {"all": "", "none": "mdn"}.get(rule.correction, rule.correction[-1])
    m, d, n = ((x if x in plain else f"({x} / (1 - {b}ᵗ))") for x, b in (("m", "β₁"), ("d", "β₂"), ("n", "β₃")))
    numerator = m if weight is None else f"({m} + {weight}{d})"
    first = {
        "zero first": "g - g_old (first step: 0)",
        "gradient first": "g - g_old (first step: g)",
        "reversed": "g_old - g",
    }
    names = _hyper_names(rule) + (["eps_root"] if hyper.eps_root != 0 else [])
    n = f"({n} + ε_root)" if hyper.eps_root != 0 and rule.eps != "inside" else n
    step = f"λ {numerator} / {EPS_TEXT[rule.eps].format(v=n)}"
    end = f"θ ← θ - {step}{DECAY_TEXT.get(rule.decay, '')}"
    return [
        *(["g ← g + w θ"] if rule.decay == "l2" else []),
        f"Δ = {first[rule.difference]}",
        "m ← β₁ m + (1 - β₁) g",
        "d ← β₂ d + (1 - β₂) Δ",
        f"n ← β₃ n + (1 - β₃) {squared}",
        f"θ ← (θ - {step}) / (1 + λ w)" if rule.decay == "proximal" else end,
        "t = 1, 2, …",
        numbers(names, hyper),
    ]


ADAN = Family("Adan", CHOICES, _hyper_names, _step, _equations)
