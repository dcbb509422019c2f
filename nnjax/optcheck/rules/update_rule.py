"""Known forms of update rules: one choice on each axis, and the equation that comes of them, in NumPy and float64."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

Number = Any  # a float, or an array (settings, 1) of which each row is a setting
Rules = dict[str, Callable[[], Any]]  # by the choice on an axis


class Form(NamedTuple):
    """An update rule: what it does at each of the places where rules differ. The defaults are gradient descent's."""

    clip: str = "none"
    decay: str = "none"
    first: str = "none"  # first moment, m
    first_correction: str = "none"
    first_used: str = "new"
    first_kept: str = "m"
    second: str = "none"  # second moment, v
    second_correction: str = "none"
    second_used: str = "new"
    second_kept: str = "v"
    maximum: str = "none"
    root: str = "sqrt"
    eps: str = "none"
    numerator: str = "m"
    rectified: str = "none"
    sign: str = "none"
    rescaled: str = "none"
    velocity: str = "none"
    rate_place: str = "outside"
    nesterov: str = "none"
    trust: str = "none"
    counter: str = "t"
    rate: str = "now"
    direction: str = "down"


class Hyper(NamedTuple):
    """Hyper-parameters of all forms."""

    learning_rate: Number = 1e-3
    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    eps_root: Number = 0.0  # inside the root, besides eps; with eps "grows", what v grows by, if that is not eps
    momentum: Number = 0.9  # of the velocity
    dampening: Number = 0.0
    weight_decay: Number = 0.0
    momentum_decay: Number = np.inf  # NAdam's: the momentum of step t is β₁ (1 - ½ .96^(t/decay…)), see `_momentum`
    first_start: Number = 0.0  # m₀
    second_start: Number = 0.0  # v₀
    clip: Number = 1.0
    trust: Number = 1.0


class Seen(NamedTuple):
    """What an optimizer was given: all leaves one after another."""

    grads: np.ndarray  # (steps, elements)
    params: np.ndarray  # (steps, elements), before each step
    rates: np.ndarray  # (steps,), the learning rate of each over the hyper-parameter
    leaf: np.ndarray  # (elements,), the number of the leaf
    leaves: int


class Memory(NamedTuple):
    """What a rule keeps from step to step, each (elements,) or (settings, elements)."""

    m: np.ndarray
    v: np.ndarray
    largest: np.ndarray  # second moment so far
    mean: np.ndarray  # of gradients, for the centered second moment
    moved: np.ndarray  # Adadelta's average of squared steps
    velocity: np.ndarray
    product: Number  # of NAdam's momenta


def updates(form: Form, hyper: Hyper, seen: Seen) -> Iterator[np.ndarray]:
    """The update of each step, (elements,), or (settings, elements) for hyper-parameters (settings, 1).

    Args:
      form: the rule.
      hyper: its hyper-parameters.
      seen: gradients and parameters.
    """
    h = Hyper(*(np.asarray(value, np.float64) for value in hyper))  # arrays: 1 / 0 is infinite
    zero = np.zeros(np.broadcast_shapes(*(np.shape(value) for value in h), seen.grads.shape[1:]))
    memory = Memory(zero + h.first_start, zero + h.second_start, zero, zero, zero, zero, 1.0)
    for k, (gradient, p) in enumerate(zip(seen.grads, seen.params, strict=True)):
        t = _count(form.counter, k, seen.leaf, seen.leaves)
        rate = h.learning_rate * _rate(form.rate, seen.rates, k)
        g = _clipped(form.clip, gradient, h.clip, seen.leaf)
        decayed = g + h.weight_decay * p if form.decay in ("l2", "l2 in m") else g
        d, memory = _direction(form, h, memory, decayed if form.decay == "l2" else g, decayed, p, t)
        if form.trust == "lamb" and form.decay == "decoupled":
            d = d + h.weight_decay * p
        if form.trust != "none":
            d = d * _trust(h, d, p, seen.leaf)
        u, memory = _stepped(form, h, memory, d, rate, k)
        u = u if form.trust == "lamb" else u - _decay(form.decay, h.weight_decay, rate, p, u)
        yield np.broadcast_to(u, zero.shape)  # a first step may do without any hyper-parameter


def _direction(
    form: Form, h: Hyper, memory: Memory, g: np.ndarray, g_first: np.ndarray, p: np.ndarray, t: Number
) -> tuple[np.ndarray, Memory]:
    """What the moments make of a gradient; `g_first` is what the first one is given."""
    m = _first(form.first, h, memory.m, g_first, t)
    v = _second(form.second, h, memory.v, g, m, memory.m, t)
    if form.eps in ("grows", "grows alone"):
        v = v + np.where(h.eps_root > 0, h.eps_root, h.eps)
    c1, c2 = _correction(form.first_correction, h.b1, h.b2, t), _correction(form.second_correction, h.b2, h.b1, t)
    m_used = m if form.first_used == "new" else memory.m
    m_used = h.b1 * memory.m + (1 - h.b1) * g_first if form.first == "lion" else m_used
    v_used = v if form.second_used == "new" else memory.v
    kept = {"m": m, "corrected": m / c1, "lost": memory.m}[form.first_kept]
    kept_v = {"v": v, "corrected": v / c2, "lost": memory.v}[form.second_kept]
    memory = memory._replace(m=kept, v=kept_v)

    if form.second == "centered":
        memory = memory._replace(mean=h.b2 * memory.mean + (1 - h.b2) * g)
        v_used = v_used - memory.mean**2
    if form.maximum != "none":
        largest = np.maximum(memory.largest, v_used / c2 if form.maximum == "corrected" else v_used)
        memory = memory._replace(largest=largest)
        v_used, c2 = largest, 1.0 if form.maximum == "corrected" else c2

    numerator, product = _numerator(form, h, m_used, g_first, c1, memory.product, t)
    numerator = numerator + h.weight_decay * p if form.decay == "divided" else numerator
    d = numerator if form.second == "none" else _divided(form, h, numerator, v_used, c2)
    d = d if form.rectified == "none" else _rectified(form, h, numerator, d, t)
    d = np.sign(d) if form.sign == "sign" else d
    if form.rescaled == "adadelta":
        d = d * np.sqrt(memory.moved + h.eps)
        memory = memory._replace(moved=h.b2 * memory.moved + (1 - h.b2) * d**2)
    return d, memory._replace(product=product)


def _numerator(
    form: Form, h: Hyper, m: np.ndarray, g: np.ndarray, c1: Number, product: Number, t: Number
) -> tuple[np.ndarray, Number]:
    """What the step follows, and the product of NAdam's momenta."""
    if form.numerator == "nadam":
        now, following = _momentum(h, t), _momentum(h, t + 1)
        product = product * now
        return following * m / (1 - product * following) + (1 - now) * g / (1 - product), product
    return (h.b1 * m + (1 - h.b1) * g if form.numerator == "lookahead" else m) / c1, product


def _stepped(form: Form, h: Hyper, memory: Memory, d: np.ndarray, rate: Number, k: int) -> tuple[np.ndarray, Memory]:
    """The step in a direction, through the velocity."""
    inside = rate * d if form.rate_place == "inside" else d
    u = _with_velocity(form, h, inside, memory.velocity, k)
    u = u if form.rate_place == "inside" else rate * u
    velocity = _velocity(form.velocity, h, inside, memory.velocity, k)
    return -u if form.direction == "down" else u, memory._replace(velocity=velocity)


def _count(counter: str, k: int, leaf: np.ndarray, leaves: int) -> Number:
    """t of the corrections, at step k = 0, 1, …"""
    return {
        "t": k + 1,
        "ahead": k + 2,
        "behind": k,
        "stuck": 1,
        "per leaf": k * leaves + leaf + 1,
    }[counter]


def _rate(kind: str, rates: np.ndarray, k: int) -> float:
    at = {"next": min(k + 1, len(rates) - 1), "previous": max(k - 1, 0)}.get(kind, k)
    return float(rates[at]) / (np.sqrt(k + 1) if kind == "over root t" else 1.0)


def _clipped(kind: str, g: np.ndarray, bound: Number, leaf: np.ndarray) -> np.ndarray:
    if kind == "value":
        return np.clip(g, -bound, bound)
    if kind == "global norm":
        norm = np.sqrt((g**2).sum(-1, keepdims=True))
    elif kind == "leaf norm":
        norm = _norms(g, leaf)
    else:
        return g
    return g * np.where(norm > bound, bound / np.where(norm > 0, norm, 1.0), 1.0)


def _first(kind: str, h: Hyper, m: np.ndarray, g: np.ndarray, t: Number) -> np.ndarray:
    if kind == "none":
        return g
    rules: Rules = {
        "ema": lambda: h.b1 * m + (1 - h.b1) * g,
        "trace": lambda: h.b1 * m + g,
        "lion": lambda: h.b2 * m + (1 - h.b2) * g,
        "with b2": lambda: h.b2 * m + (1 - h.b2) * g,
        "mixed": lambda: h.b1 * m + (1 - h.b2) * g,
        "swapped": lambda: (1 - h.b1) * m + h.b1 * g,
        "mean": lambda: m + (g - m) / t,
    }
    return rules[kind]()


def _second(
    kind: str, h: Hyper, v: np.ndarray, g: np.ndarray, m: np.ndarray, m_before: np.ndarray, t: Number
) -> np.ndarray:
    b2 = h.b2
    rules: Rules = {
        "none": lambda: v,
        "ema": lambda: b2 * v + (1 - b2) * g**2,
        "centered": lambda: b2 * v + (1 - b2) * g**2,
        "trace": lambda: b2 * v + g**2,
        "sum": lambda: v + g**2,
        "largest": lambda: np.maximum(b2 * v, np.abs(g)),
        "largest with eps": lambda: np.maximum(b2 * v, np.abs(g) + h.eps),
        "belief": lambda: b2 * v + (1 - b2) * (g - m) ** 2,
        "belief before": lambda: b2 * v + (1 - b2) * (g - m_before) ** 2,
        "yogi": lambda: v - (1 - b2) * np.sign(v - g**2) * g**2,
        "absolute": lambda: b2 * v + (1 - b2) * np.abs(g),
        "of m": lambda: b2 * v + (1 - b2) * m**2,
        "with b1": lambda: h.b1 * v + (1 - h.b1) * g**2,
        "mixed": lambda: b2 * v + (1 - h.b1) * g**2,
        "swapped": lambda: (1 - b2) * v + b2 * g**2,
        "on m": lambda: b2 * m + (1 - b2) * g**2,
        "mean": lambda: v + (g**2 - v) / t,
    }
    return rules[kind]()


def _correction(kind: str, b: Number, other: Number, t: Number) -> Number:
    """What a moment is divided by."""
    rules: Rules = {
        "none": lambda: 1.0,
        "t": lambda: 1 - b**t,
        "t + 1": lambda: 1 - b ** (t + 1),
        "constant": lambda: 1 - b,
        "multiplied": lambda: 1 / (1 - b**t),
        "linear": lambda: 1 - b * t,
        "swapped": lambda: 1 - other**t,
    }
    return rules[kind]()


def _momentum(h: Hyper, t: Number) -> Number:
    """NAdam's momentum of a step, β₁ (1 - ½ .96^(t ψ)); β₁ for ψ = ∞."""
    return h.b1 * (1 - 0.5 * 0.96 ** (t * h.momentum_decay))


def _divided(form: Form, h: Hyper, numerator: np.ndarray, v: np.ndarray, c2: Number) -> np.ndarray:
    """The numerator over the root of the second moment, with ε where the form has it."""
    linear = form.second in ("largest", "largest with eps", "absolute") or form.root == "none"

    def root(x: np.ndarray) -> np.ndarray:
        return x if linear else np.sqrt(x)

    eps = h.eps
    hat = v / c2 + (0.0 if "grows" in form.eps else h.eps_root)
    if form.eps == "over the root":
        return numerator * (1 / root(hat) + eps)
    denominators: Rules = {
        "none": lambda: root(hat),
        "grows": lambda: root(hat) + eps,
        "grows alone": lambda: root(hat),
        "outside": lambda: root(hat) + eps,
        "inside": lambda: root(hat + eps),
        "before correction": lambda: (root(v + h.eps_root) + eps) / root(np.asarray(c2)),
        "inside before correction": lambda: root(v + eps) / root(np.asarray(c2)),
        "floor": lambda: np.maximum(root(hat), eps),
    }
    denominator = denominators[form.eps]()
    return np.where(denominator == 0, np.where(numerator == 0, 0.0, np.nan), numerator / denominator)


def _rectified(form: Form, h: Hyper, numerator: np.ndarray, d: np.ndarray, t: Number) -> np.ndarray:
    limit = 2 / (1 - h.b2) - 1
    length = limit - 2 * t * h.b2**t / (1 - h.b2**t)
    over = length > (4 if form.rectified == "above 4" else 5)
    safe = np.where(over, length, 6.0)
    r = np.sqrt((safe - 4) * (safe - 2) * limit / ((limit - 4) * (limit - 2) * safe))
    return np.where(over, r * d, numerator)


def _trust(h: Hyper, d: np.ndarray, p: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    size, step = _norms(p, leaf), _norms(d, leaf)
    return np.where((size == 0) | (step == 0), 1.0, h.trust * size / np.where(step == 0, 1.0, step))


def _norms(a: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    """For each element the norm of its leaf."""
    flat = np.atleast_2d(a) ** 2
    sums = np.stack([np.bincount(leaf, row) for row in flat])
    return np.sqrt(sums)[:, leaf].reshape(a.shape)


def _velocity(kind: str, h: Hyper, d: np.ndarray, before: np.ndarray, k: int) -> np.ndarray:
    if kind == "none":
        return d
    rules: Rules = {
        "trace": lambda: h.momentum * before + d,
        "ema": lambda: h.momentum * before + (1 - h.momentum) * d,
        "dampened": lambda: h.momentum * before + (1 - h.dampening) * d if k else d,
        "dampened at once": lambda: h.momentum * before + (1 - h.dampening) * d,
    }
    return rules[kind]()


def _with_velocity(form: Form, h: Hyper, d: np.ndarray, before: np.ndarray, k: int) -> np.ndarray:
    """The step that the velocity makes of a direction."""
    new = _velocity(form.velocity, h, d, before, k)
    if form.velocity == "none":
        return d
    rules: Rules = {
        "none": lambda: new,
        "standard": lambda: h.momentum * new + ((1 - h.momentum) * d if form.velocity == "ema" else d),
        "of the new": lambda: h.momentum**2 * new + (1 + h.momentum) * d,
        "old": lambda: before,
    }
    return rules[form.nesterov]()


def _decay(kind: str, weight_decay: Number, rate: Number, p: np.ndarray, u: np.ndarray) -> Number:
    """What is taken off the parameters besides the update u."""
    rules: Rules = {
        "decoupled": lambda: rate * weight_decay * p,
        "without rate": lambda: weight_decay * p,
        "of the updated": lambda: rate * weight_decay * (p + u),
        "growing": lambda: -rate * weight_decay * p,
    }
    return rules[kind]() if kind in rules else 0.0
