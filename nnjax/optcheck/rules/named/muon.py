"""Define Muon (Jordan et al. 2024), which orthogonalises the momentum of matrices by Newton-Schulz iterations."""

from typing import NamedTuple

import numpy as np

from nnjax.optcheck.rules.equations import numbers
from nnjax.optcheck.rules.named.family import DECAY, DECAY_TEXT, Family, Memory, Step, block, decayed, divide
from nnjax.optcheck.rules.update_rule import Formula, HyperParams


class MuonRule(NamedTuple):
    """The choices of Muon, with the defaults of its author's code."""

    first: str = "trace"
    nesterov: str = "standard"
    norm: str = "frobenius"
    coefficients: str = "quintic"
    iterations: str = "5"
    scale: str = "rows over columns"
    others: str = "nadam"
    decay: str = "none"


CHOICES = {
    "first": {
        "trace": "the momentum is a decaying sum",
        "ema": "the momentum is a moving average",
        "none": "there is no momentum",
    },
    "nesterov": {
        "standard": "the orthogonalised matrix is Nesterov's, g + μ b",
        "none": "the orthogonalised matrix is the momentum",
        "corrected": "the orthogonalised matrix is Nesterov's, with NAdam's bias corrections (optax)",
    },
    "norm": {
        "frobenius": "matrices are divided by their Frobenius norm before the iterations",
        "spectral": "matrices are divided by their spectral norm before the iterations",
        "none": "matrices are not normalised before the iterations",
    },
    "coefficients": {
        "quintic": "the iterations have the coefficients 3.4445, -4.7750, 2.0315",
        "cubic": "the iterations have the coefficients 1.5, -0.5, 0",
        "exact quintic": "the iterations have the coefficients 1.875, -1.25, 0.375",
        "svd": "matrices are orthogonalised exactly, by their singular vectors",
    },
    "iterations": {
        count: f"there are {text} iterations"
        for count, text in {"3": "3", "4": "4", "5": "5", "6": "6", "7": "7", "8": "8", "10": "10"}.items()
    },
    "scale": {
        "rows over columns": "steps are multiplied by √max(1, rows/columns)",
        "columns over rows": "steps are multiplied by √max(1, columns/rows) (optax, whose matrices act from the right)",
        "rms": "steps are multiplied by 0.2 √max(rows, columns)",
        "largest": "steps are multiplied by √max(rows, columns)",
        "ratio": "steps are multiplied by √(rows/columns)",
        "none": "steps are not multiplied by a factor that depends on the shape",
    },
    "others": {
        "nadam": "leaves that are not matrices follow Adam with Nesterov's correction (optax)",
        "adam": "leaves that are not matrices follow Adam",
        "momentum": "leaves that are not matrices follow the momentum",
        "flattened": "leaves with more than two axes are flattened to matrices; vectors follow Adam",
    },
    "decay": DECAY,
}
NORM_EPS = 1e-7  # too small to be observed, because norms of whole matrices are much larger
COEFFICIENTS = {"quintic": (3.4445, -4.7750, 2.0315), "cubic": (1.5, -0.5, 0.0), "exact quintic": (1.875, -1.25, 0.375)}


def _is_relevant(rule: MuonRule, place: str) -> bool:
    if place in ("iterations", "norm"):
        return rule.coefficients != "svd"
    return place != "nesterov" or rule.first != "none"


def _hyper_names(rule: MuonRule) -> list[str]:
    adam = rule.others != "momentum"
    used = {"learning_rate": True, "b1": adam, "b2": adam, "eps": adam}
    used |= {"momentum": rule.first != "none", "weight_decay": rule.decay != "none"}
    return [name for name, is_used in used.items() if is_used]


def _step(rule: MuonRule, h: HyperParams, memory: Memory, s: Step) -> tuple[np.ndarray, Memory]:
    g = s.zero + (s.g + h.weight_decay * s.p if rule.decay == "l2" else s.g)
    share = 1 - h.momentum if rule.first == "ema" else 1.0
    b = g if rule.first == "none" else h.momentum * memory.get("b", s.zero) + share * g
    mixed = b
    if rule.first != "none" and rule.nesterov == "standard":
        mixed = share * g + h.momentum * b
    if rule.first != "none" and rule.nesterov == "corrected":
        mu = h.momentum
        mixed = (1 - mu) * (mu * b / share / (1 - mu ** (s.t + 1)) + g / (1 - mu**s.t))
    m = h.b1 * memory.get("m", s.zero) + (1 - h.b1) * g
    v = h.b2 * memory.get("v", s.zero) + (1 - h.b2) * g**2
    u = mixed + s.zero if rule.others == "momentum" else _adam(rule, h, m, v, g, s.t)
    for leaf in s.leaves:
        if len(leaf[1]) == 2 or (len(leaf[1]) > 2 and rule.others == "flattened"):
            matrix = block(mixed, leaf)
            matrix = matrix.reshape(*matrix.shape[: mixed.ndim - 1], leaf[1][0], -1)
            u[..., leaf[0]] = _orthogonalised(rule, matrix).reshape(u[..., leaf[0]].shape)
    return decayed(rule.decay, -s.rate * u, h, s), {"b": b, "m": m, "v": v}


def _adam(rule: MuonRule, h: HyperParams, m: np.ndarray, v: np.ndarray, g: np.ndarray, t: int) -> np.ndarray:
    m_hat = m / (1 - h.b1**t)
    if rule.others == "nadam":
        m_hat = h.b1 * m / (1 - h.b1 ** (t + 1)) + (1 - h.b1) * g / (1 - h.b1**t)
    return divide(m_hat, np.sqrt(v / (1 - h.b2**t)) + h.eps)


def _orthogonalised(rule: MuonRule, matrix: np.ndarray) -> np.ndarray:
    """Orthogonalise matrices (…, rows, columns) and multiply them by the factor that depends on their shape."""
    rows, columns = matrix.shape[-2:]
    matrix = np.nan_to_num(matrix)
    scale = {
        "rows over columns": max(1.0, rows / columns) ** 0.5,
        "columns over rows": max(1.0, columns / rows) ** 0.5,
        "rms": 0.2 * max(rows, columns) ** 0.5,
        "largest": max(rows, columns) ** 0.5,
        "ratio": (rows / columns) ** 0.5,
        "none": 1.0,
    }[rule.scale]
    if rule.coefficients == "svd":
        left, _, right = np.linalg.svd(matrix, full_matrices=False)
        return scale * (left @ right)
    x = matrix.swapaxes(-1, -2) if rows > columns else matrix
    if rule.norm == "frobenius":
        x = x / (np.sqrt((x**2).sum((-1, -2), keepdims=True)) + NORM_EPS)
    elif rule.norm == "spectral":
        x = x / (np.linalg.norm(x, 2, axis=(-2, -1), keepdims=True) + NORM_EPS)
    a, b, c = COEFFICIENTS[rule.coefficients]
    for _ in range(int(rule.iterations)):
        gram = x @ x.swapaxes(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return scale * (x.swapaxes(-1, -2) if rows > columns else x)


def _equations(formula: Formula) -> list[str]:
    rule, hyper = formula
    mixed = "b" if rule.first != "none" else "g"
    if rule.first != "none":
        corrected = "(μ b / (1 - μᵗ⁺¹) + g / (1 - μᵗ))"
        mixed = {
            "standard": "((1 - μ) g + μ b)" if rule.first == "ema" else "(g + μ b)",
            "none": "b",
            "corrected": corrected,
        }[rule.nesterov]
    norm = {"frobenius": f"{mixed} / (‖{mixed}‖ + ε)", "spectral": f"{mixed} / (‖{mixed}‖₂ + ε)", "none": mixed}
    a, b, c = COEFFICIENTS.get(rule.coefficients, (0, 0, 0))
    iterations = [
        f"X = {norm[rule.norm]}",
        f"{rule.iterations} times: X ← {a:g} X + ({b:g} A + {c:g} A²) X, A = X Xᵀ",
    ]
    scale = {
        "rows over columns": "√max(1, rows/columns) ", "columns over rows": "√max(1, columns/rows) ",
        "rms": "0.2 √max(rows, columns) ", "largest": "√max(rows, columns) ", "ratio": "√(rows/columns) ", "none": "",
    }[rule.scale]  # fmt: skip
    others = {"nadam": "NAdam", "adam": "Adam", "momentum": f"θ ← θ - λ {mixed}", "flattened": "Adam for vectors"}
    return [
        *(["g ← g + w θ"] if rule.decay == "l2" else []),
        *(["b ← μ b + (1 - μ) g" if rule.first == "ema" else "b ← μ b + g"] if rule.first != "none" else []),
        *([f"X = U Vᵀ of {mixed} = U S Vᵀ"] if rule.coefficients == "svd" else iterations),
        f"θ ← θ - λ {scale}X{DECAY_TEXT.get(rule.decay, '')}",
        f"other leaves: {others[rule.others]}",
        numbers(_hyper_names(rule), hyper),
    ]


MUON = Family("Muon", CHOICES, _hyper_names, _step, _equations, _is_relevant, by_leaf=True)
