"""Define schedule-free SGD and AdamW (Defazio et al. 2024), as in optax and in the authors' code.

The parameters that the optimizer receives are y = (1 - β₁) z + β₁ x. Steps change z, and x is the average of z.
"""

from typing import NamedTuple

import numpy as np

from nnjax.optcheck.rules.equations import numbers
from nnjax.optcheck.rules.named.family import DECAY, EPS, EPS_TEXT, Family, Memory, Step, divide, root_of
from nnjax.optcheck.rules.update_rule import Formula, HyperParams


class ScheduleFreeRule(NamedTuple):
    """The choices of schedule-free optimizers, with the defaults of schedule-free AdamW."""

    second: str = "ema"
    correction: str = "t"
    eps: str = "outside"
    average: str = "1/t"
    memory: str = "x of the parameters"
    result: str = "y"
    decay: str = "none"


CHOICES = {
    "second": {
        "ema": "z follows Adam without a first moment",
        "none": "z follows gradient descent",
    },
    "correction": {"t": "the second moment has a bias correction", "none": "the second moment has no bias correction"},
    "eps": EPS,
    "average": {
        "1/t": "x is the mean of z: the newest has the weight 1/t",
        "1/(t + 1)": "x is the mean of z and of the first parameters: the newest has the weight 1/(t + 1)",
        "2/(t + 1)": "the newest z has the weight 2/(t + 1) in x",
        "constant": "x is a moving average of z with β₁",
    },
    "memory": {
        "x of the parameters": "x is computed from the parameters and z",
        "x stored": "x is stored and the parameters are not read (equivalent unless other code changes the parameters)",
    },
    "result": {
        "y": "the new parameters are y, at which gradients are taken",
        "x": "the new parameters are the average x",
        "z": "the new parameters are z, without the average",
    },
    "decay": {name: DECAY[name] for name in ("none", "decoupled", "without rate")},
}


def _is_relevant(rule: ScheduleFreeRule, place: str) -> bool:
    return place not in ("correction", "eps") or rule.second != "none"


def _hyper_names(rule: ScheduleFreeRule) -> list[str]:
    second = rule.second != "none"
    used = {"learning_rate": True, "b1": True, "b2": second, "eps": second, "weight_decay": rule.decay != "none"}
    return [name for name, is_used in used.items() if is_used]


def _step(rule: ScheduleFreeRule, h: HyperParams, memory: Memory, s: Step) -> tuple[np.ndarray, Memory]:
    y = s.zero + s.p
    z, v, total = memory.get("z", y), memory.get("v", s.zero), memory.get("total", 0.0)
    x = memory.get("x", y) if rule.memory == "x stored" else (y - (1 - h.b1) * z) / h.b1
    d = s.zero + s.g
    if rule.second != "none":
        v = h.b2 * v + (1 - h.b2) * s.g**2
        d = divide(d, root_of(v / (1 - h.b2**s.t) if rule.correction == "t" else v, rule.eps, h))
    weight = np.maximum(memory.get("largest", 0.0), s.rate) ** 2  # the largest rate so far, squared
    total = total + weight
    share = {
        "1/t": weight / total, "1/(t + 1)": 1 / (s.t + 1), "2/(t + 1)": 2 / (s.t + 1), "constant": 1 - h.b1,
    }[rule.average]  # fmt: skip
    z = z - s.rate * d
    if rule.decay != "none":
        z = z - (s.rate if rule.decay == "decoupled" else 1.0) * h.weight_decay * y
    x = (1 - share) * x + share * z
    new = {"y": h.b1 * x + (1 - h.b1) * z, "x": x, "z": z}[rule.result]
    largest = np.maximum(memory.get("largest", 0.0), s.rate)
    return new - y, {"z": z, "v": v, "x": x, "total": total, "largest": largest}


def _equations(formula: Formula) -> list[str]:
    rule, hyper = formula
    v = "v / (1 - β₂ᵗ)" if rule.correction == "t" else "v"
    root = EPS_TEXT[rule.eps].format(v=f"({v})" if " " in v else v)
    d = "g" if rule.second == "none" else f"g / {root}"
    decay = {"decoupled": " - λ w y", "without rate": " - w y", "none": ""}[rule.decay]
    share = {"1/t": "1/t", "1/(t + 1)": "1/(t + 1)", "2/(t + 1)": "2/(t + 1)", "constant": "(1 - β₁)"}[rule.average]
    return [
        *(["x = (y - (1 - β₁) z) / β₁"] if rule.memory != "x stored" else []),
        *(["v ← β₂ v + (1 - β₂) g²"] if rule.second != "none" else []),
        f"z ← z - λ {d}{decay}",
        f"x ← x + {share} (z - x)",
        {"y": "θ = y ← (1 - β₁) z + β₁ x", "x": "θ = y ← x", "z": "θ = y ← z"}[rule.result],
        "t = 1, 2, …",
        numbers(_hyper_names(rule), hyper),
    ]


SCHEDULE_FREE = Family("schedule-free", CHOICES, _hyper_names, _step, _equations, _is_relevant)
