"""Define AdamP (Heo et al. 2021): Adam without the part of a step that only changes the norm of the weights."""

from typing import NamedTuple

import numpy as np

from nnjax.optcheck.rules.equations import numbers
from nnjax.optcheck.rules.named.family import DECAY, Family, Memory, Step, block, divide
from nnjax.optcheck.rules.update_rule import Formula, HyperParams


class AdamPRule(NamedTuple):
    """The choices of AdamP, with the defaults of its authors' code."""

    projection: str = "rows or leaf"
    cosine: str = "gradient"
    nesterov: str = "none"
    correction: str = "t"
    eps: str = "after correction"
    decay_of_projected: str = "reduced"
    decay: str = "none"


CHOICES = {
    "projection": {
        "rows or leaf": "steps are projected row by row, or else as a whole leaf",
        "rows": "steps are projected row by row only",
        "leaf": "steps are projected as a whole leaf only",
        "none": "steps are not projected (Adam)",
    },
    "cosine": {
        "gradient": "the projection depends on the cosine of gradient and parameters",
        "step": "the projection depends on the cosine of step and parameters",
    },
    "nesterov": {"none": "the step follows the first moment", "standard": "the step looks ahead, β₁ m + (1 - β₁) g"},
    "correction": {
        "t": "both moments have a bias correction",
        "none": "no moment has a bias correction",
        "not m": "the first moment has no bias correction",
    },
    "eps": {
        "after correction": "ε is added outside the root, after the bias correction",
        "before correction": "ε is added outside the root, before the bias correction",
        "inside": "ε is added inside the root",
    },
    "decay_of_projected": {
        "reduced": "the weight decay of projected leaves is reduced",
        "full": "the weight decay of projected leaves is not reduced",
    },
    "decay": {name: DECAY[name] for name in ("none", "decoupled", "l2", "without rate")},
}


def _is_relevant(rule: AdamPRule, place: str) -> bool:
    projects = rule.projection != "none"
    return {"cosine": projects, "decay_of_projected": projects and rule.decay in ("decoupled", "without rate")}.get(
        place, True
    )


def _hyper_names(rule: AdamPRule) -> list[str]:
    used = {
        "learning_rate": True, "b1": True, "b2": True, "eps": True, "weight_decay": rule.decay != "none",
        "ratio": _is_relevant(rule, "decay_of_projected") and rule.decay_of_projected == "reduced",
    }  # fmt: skip
    return [name for name, is_used in used.items() if is_used]


def _step(rule: AdamPRule, h: HyperParams, memory: Memory, s: Step) -> tuple[np.ndarray, Memory]:
    g = s.zero + (s.g + h.weight_decay * s.p if rule.decay == "l2" else s.g)
    m = h.b1 * memory.get("m", s.zero) + (1 - h.b1) * g
    v = h.b2 * memory.get("v", s.zero) + (1 - h.b2) * g**2
    c1 = 1.0 if rule.correction in ("none", "not m") else 1 - h.b1**s.t
    c2 = 1.0 if rule.correction == "none" else 1 - h.b2**s.t
    root = {
        "after correction": np.sqrt(v / c2) + h.eps,
        "before correction": (np.sqrt(v) + h.eps) / np.sqrt(c2),
        "inside": np.sqrt(v / c2 + h.eps),
    }[rule.eps]
    numerator = h.b1 * m + (1 - h.b1) * g if rule.nesterov == "standard" else m
    u, factor = divide(numerator, root) + s.zero, np.ones_like(s.zero)
    for leaf in s.leaves:
        if len(leaf[1]) > 1 and rule.projection != "none":
            parts = block(g if rule.cosine == "gradient" else u, leaf), block(u, leaf)
            p = block(np.asarray(s.p), leaf)
            new, projected = _projected(rule, h, *parts, p)
            u[..., leaf[0]] = new.reshape(u[..., leaf[0]].shape)
            factor[..., leaf[0]] = np.where(projected[..., None], h.ratio, 1.0)
    change = -s.rate / c1 * u
    if rule.decay in ("decoupled", "without rate"):
        decay = (s.rate if rule.decay == "decoupled" else 1.0) * h.weight_decay * s.p
        change = change - decay * (factor if rule.decay_of_projected == "reduced" else 1.0)
    return change, {"m": m, "v": v}


def _projected(
    rule: AdamPRule, h: HyperParams, direction: np.ndarray, u: np.ndarray, p: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the step of a leaf, of shape (…, *shape), and flags of shape (…), True if the step was projected."""
    rows, done = p.shape[0], np.zeros(u.shape[: u.ndim - p.ndim], bool)
    views = {"rows or leaf": (rows, 1), "rows": (rows,), "leaf": (1,)}[rule.projection]
    new = u
    for count in views:
        flat, flat_u, flat_p = (
            x.reshape(*x.shape[: x.ndim - p.ndim], count, p.size // count) for x in (direction, new, p)
        )
        eps = h.eps if np.ndim(h.eps) == 0 else h.eps[..., 0:1]
        norms = (np.linalg.norm(flat, axis=-1) + eps) * (np.linalg.norm(flat_p, axis=-1) + eps)
        cosine = np.abs((flat * flat_p).sum(-1)) / norms
        flag = (cosine.max(-1) < np.max(h.delta) / np.sqrt(p.size // count)) & ~done
        unit = flat_p / (np.linalg.norm(flat_p, axis=-1, keepdims=True) + np.asarray(eps)[..., None])
        without = (flat_u - unit * (unit * flat_u).sum(-1, keepdims=True)).reshape(new.shape)
        new = np.where(flag.reshape(*flag.shape, *(1,) * p.ndim), without, new)
        done = done | flag
    return new, done


def _equations(formula: Formula) -> list[str]:
    rule, hyper = formula
    m = "(β₁ m + (1 - β₁) g)" if rule.nesterov == "standard" else "m"
    m = f"{m} / (1 - β₁ᵗ)" if rule.correction == "t" else m
    c = "" if rule.correction == "none" else " / (1 - β₂ᵗ)"
    after = f"(√(v{c}) + ε)"
    before = f"((√v + ε){' / √(1 - β₂ᵗ)' if c else ''})"
    root = {"after correction": after, "before correction": before, "inside": f"√(v{c} + ε)"}[rule.eps]
    views = {"rows or leaf": "each row θ̂, else the leaf θ̂,", "rows": "each row θ̂", "leaf": "each leaf θ̂"}
    which = "g" if rule.cosine == "gradient" else "u"
    ratio = "ρ " if "ratio" in _hyper_names(rule) else ""
    decay = {"decoupled": f" - λ {ratio}w θ", "without rate": f" - {ratio}w θ"}.get(rule.decay, "")
    projection = f"u ← u - θ̂ ⟨θ̂, u⟩ / ‖θ̂‖² in {views.get(rule.projection)} if |cos({which}, θ̂)| < δ/√size"
    return [
        *(["g ← g + w θ"] if rule.decay == "l2" else []),
        "m ← β₁ m + (1 - β₁) g",
        "v ← β₂ v + (1 - β₂) g²",
        f"u = {m} / {root}",
        *([projection] if rule.projection != "none" else []),
        f"θ ← θ - λ u{decay}",
        "t = 1, 2, …",
        numbers(_hyper_names(rule), hyper),
    ]


ADAMP = Family("AdamP", CHOICES, _hyper_names, _step, _equations, _is_relevant, by_leaf=True)
