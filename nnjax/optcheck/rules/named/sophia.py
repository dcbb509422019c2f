"""Define Sophia (Liu et al. 2023): momentum divided by an average of the Hessian's diagonal and clipped by element."""

from typing import NamedTuple

import numpy as np

from nnjax.optcheck.rules.equations import numbers
from nnjax.optcheck.rules.named.family import DECAY, DECAY_TEXT, Family, Memory, Step, decayed, divide
from nnjax.optcheck.rules.update_rule import Formula, HyperParams

CURVATURE = 0.5  # h in the objective f(θ) = 1 + ⟨g, θ - θₖ⟩ + ½ h ‖θ - θₖ‖² that is passed to optimizers


class SophiaRule(NamedTuple):
    """The choices of Sophia, with the defaults of algorithm 3 in the paper and Hutchinson's estimator."""

    hessian: str = "objective"
    interval: str = "10"
    used: str = "new"
    first: str = "ema"
    correction: str = "none"
    second_correction: str = "none"
    eps: str = "floor"
    clip: str = "value"
    decay: str = "none"


CHOICES = {
    "hessian": {
        "objective": "the Hessian's diagonal is computed from the objective",
        "squared gradient": "the Hessian's diagonal is estimated by g² (Gauss-Newton-Bartlett)",
    },
    "interval": {
        count: f"the Hessian is estimated at every {text} step"
        for count, text in {"1": "single", "2": "second", "5": "fifth", "10": "tenth", "20": "twentieth"}.items()
    },
    "used": {
        "new": "the step uses the new average of the Hessian",
        "old": "the step uses the average of the Hessian from before this step (optax)",
    },
    "first": {
        "ema": "the first moment is a moving average, β₁ m + (1 - β₁) g",
        "trace": "the first moment is a decaying sum, β₁ m + g",
        "none": "there is no first moment",
    },
    "correction": {
        "none": "the first moment has no bias correction",
        "t": "the first moment is divided by 1 - β₁ᵗ (optax)",
    },
    "second_correction": {
        "none": "the average of the Hessian has no bias correction",
        "t": "the average of the Hessian is divided by 1 - β₂ⁿ after n estimates",
    },
    "eps": {
        "floor": "ε is the lower bound of the denominator, max(γ h, ε)",
        "outside": "ε is added to the denominator, γ h + ε",
    },
    "clip": {
        "value": "the ratio is clipped element by element",
        "none": "the ratio is not clipped",
    },
    "decay": DECAY,
}


def _is_relevant(rule: SophiaRule, place: str) -> bool:
    return place != "correction" or rule.first != "none"


def _hyper_names(rule: SophiaRule) -> list[str]:
    used = {"learning_rate": True, "b1": rule.first != "none", "b2": True, "eps": True, "gamma": True}
    used |= {"clip": rule.clip != "none", "weight_decay": rule.decay != "none"}
    return [name for name, is_used in used.items() if is_used]


def _step(rule: SophiaRule, h: HyperParams, memory: Memory, s: Step) -> tuple[np.ndarray, Memory]:
    g = s.zero + (s.g + h.weight_decay * s.p if rule.decay == "l2" else s.g)
    m = h.b1 * memory.get("m", s.zero) + (g if rule.first == "trace" else (1 - h.b1) * g)
    m = g if rule.first == "none" else m
    interval = int(rule.interval)
    old = new = memory.get("v", s.zero)
    if (s.t - 1) % interval == 0:
        estimate = g**2 if rule.hessian == "squared gradient" else CURVATURE
        new = h.b2 * old + (1 - h.b2) * estimate
    v, count = (new, (s.t - 1) // interval + 1) if rule.used == "new" else (old, (s.t - 2) // interval + 1)
    if rule.second_correction == "t" and count:
        v = v / (1 - h.b2**count)
    m_hat = m / (1 - h.b1**s.t) if rule.correction == "t" and rule.first != "none" else m
    ratio = divide(m_hat, np.maximum(h.gamma * v, h.eps) if rule.eps == "floor" else h.gamma * v + h.eps)
    u = np.clip(ratio, -h.clip, h.clip) if rule.clip == "value" else ratio
    return decayed(rule.decay, -s.rate * u, h, s), {"m": m, "v": new}


def _equations(formula: Formula) -> list[str]:
    rule, hyper = formula
    momentum = {"ema": ["m ← β₁ m + (1 - β₁) g"], "trace": ["m ← β₁ m + g"], "none": []}[rule.first]
    m = "g" if rule.first == "none" else "m"
    m = "m / (1 - β₁ᵗ)" if rule.correction == "t" and rule.first != "none" else m
    estimate = "g²" if rule.hessian == "squared gradient" else "∂²f/∂θ²"
    when = "" if rule.interval == "1" else f" at steps 1, {1 + int(rule.interval)}, {1 + 2 * int(rule.interval)}, …"
    v = "v" if rule.used == "new" else "v_old"
    v = f"{v} / (1 - β₂ⁿ)" if rule.second_correction == "t" else v
    denominator = f"max(γ {v}, ε)" if rule.eps == "floor" else f"(γ {v} + ε)"
    ratio = f"{m} / {denominator}" if " " not in m else f"({m}) / {denominator}"
    step = f"clip({ratio}, ±c)" if rule.clip == "value" else ratio
    return [
        *(["g ← g + w θ"] if rule.decay == "l2" else []),
        *momentum,
        f"v ← β₂ v + (1 - β₂) {estimate}{when}",
        f"θ ← θ - λ {step}{DECAY_TEXT.get(rule.decay, '')}",
        *(["t = 1, 2, …"] if rule.correction == "t" and rule.first != "none" else []),
        numbers(_hyper_names(rule), hyper),
    ]


SOPHIA = Family("Sophia", CHOICES, _hyper_names, _step, _equations, _is_relevant)
