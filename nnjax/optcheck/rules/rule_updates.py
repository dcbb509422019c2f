"""Compute the updates of rules in NumPy and float64."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from nnjax.optcheck.rules.update_rule import (
    GRADIENT_DECAY,
    LAMB,
    LION,
    Formula,
    HyperParams,
    Inputs,
    Number,
    UpdateRule,
    is_linear,
)

VIA_FLOAT32 = " via float32"  # end of a choice whose values are rounded to float32 first, see `roundings`
# Storage dtypes of moments. For those in ROUNDED, products with decay rates are rounded too.
ROUNDED = ("bfloat16", "float16", f"float16{VIA_FLOAT32}")
EXTREMES = ("corrected", "raw", "corrected twice", "smallest", "smallest corrected")  # of `maximum`
STORED = ("bfloat16 stored", "float16 stored", f"float16 stored{VIA_FLOAT32}")


class State(NamedTuple):
    """State of a rule between steps. Arrays have shape (elements,) or (settings, elements)."""

    m: np.ndarray
    v: np.ndarray
    v_max: np.ndarray
    g_mean: np.ndarray  # moving average of gradients, for the centered second moment
    step_square: np.ndarray  # Adadelta's moving average of squared steps
    velocity: np.ndarray
    product: Number  # product of NAdam's momentum coefficients so far
    g_old: np.ndarray  # gradient of the previous step
    g_sum: np.ndarray  # sum of all gradients


# One expression per choice. h: HyperParams, s: State before the step, b: decay rate or velocity, m: first moment after
# the step
Choices = dict[str, Callable[..., Any]]

FIRST: Choices = {
    "none": lambda h, s, g, t: g,
    "ema": lambda h, s, g, t: h.b1 * s.m + (1 - h.b1) * g,
    "trace": lambda h, s, g, t: h.b1 * s.m + g,
    "lion": lambda h, s, g, t: h.b2 * s.m + (1 - h.b2) * g,
    "lion trace": lambda h, s, g, t: h.b2 * s.m + g,
    "lion full gradient": lambda h, s, g, t: h.b2 * s.m + (1 - h.b2) * g,
    "lion new m": lambda h, s, g, t: h.b2 * s.m + (1 - h.b2) * g,
    "lion precedence": lambda h, s, g, t: h.b2 * s.m + (1 - h.b2) * g,
    "lion swapped": lambda h, s, g, t: h.b2 * s.m + (1 - h.b2) * g,
    "lion stored precedence": lambda h, s, g, t: h.b2 * s.m + 1 - h.b2 * g,
    "lion of signs": lambda h, s, g, t: h.b2 * s.m + (1 - h.b2) * np.sign(g),
    "lion of steps": lambda h, s, g, t: h.b2 * s.m + (1 - h.b2) * np.sign(h.b1 * s.m + (1 - h.b1) * g),
    "lion stored step": lambda h, s, g, t: np.sign(h.b1 * s.m + (1 - h.b1) * g),
    "with b2": lambda h, s, g, t: h.b2 * s.m + (1 - h.b2) * g,
    "with power": lambda h, s, g, t: h.b1**t * s.m + (1 - h.b1**t) * g,
    "with schedule": lambda h, s, g, t: _nadam_momentum(h, t) * s.m + (1 - _nadam_momentum(h, t)) * g,
    "another rate": lambda h, s, g, t: h.b3 * s.m + (1 - h.b3) * g,
    "mixed": lambda h, s, g, t: h.b1 * s.m + (1 - h.b2) * g,
    "swapped": lambda h, s, g, t: (1 - h.b1) * s.m + h.b1 * g,
    "precedence": lambda h, s, g, t: h.b1 * s.m + 1 - h.b1 * g,
    "without b1": lambda h, s, g, t: s.m + (1 - h.b1) * g,
    "sum": lambda h, s, g, t: s.m + g,
    "both": lambda h, s, g, t: h.b1 * (s.m + g),
    "both average": lambda h, s, g, t: h.b1 * (s.m + (1 - h.b1) * g),
    "minus": lambda h, s, g, t: h.b1 * s.m - (1 - h.b1) * g,
    "v for m": lambda h, s, g, t: h.b1 * s.v + (1 - h.b1) * g,
    "mean": lambda h, s, g, t: s.m + (g - s.m) / t,
    "gradient": lambda h, s, g, t: g,
    "ema from first": lambda h, s, g, t: np.where(np.equal(t, 1), g, h.b1 * s.m + (1 - h.b1) * g),
}

LION_STEP: Choices = {  # what the step takes the sign of; `m` is the first moment before the step, `new` after it
    "lion": lambda h, m, new, g: h.b1 * m + (1 - h.b1) * g,
    "lion full gradient": lambda h, m, new, g: h.b1 * m + g,
    "lion new m": lambda h, m, new, g: h.b1 * new + (1 - h.b1) * g,
    "lion precedence": lambda h, m, new, g: h.b1 * m + 1 - h.b1 * g,
    "lion swapped": lambda h, m, new, g: (1 - h.b1) * m + h.b1 * g,
}

SECOND: Choices = {
    "none": lambda h, s, g, m, t: s.v,
    "ema": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * g**2,
    "centered": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * g**2,
    "centered old mean": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * g**2,
    "centered plus": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * g**2,
    "trace": lambda h, s, g, m, t: h.b2 * s.v + g**2,
    "sum": lambda h, s, g, m, t: s.v + g**2,
    "largest": lambda h, s, g, m, t: np.maximum(h.b2 * s.v, np.abs(g)),
    "largest ever": lambda h, s, g, m, t: np.maximum(s.v, np.abs(g)),
    "largest ever with eps": lambda h, s, g, m, t: np.maximum(s.v, np.abs(g) + h.eps),
    "largest of m": lambda h, s, g, m, t: np.maximum(h.b2 * s.v, np.abs(m)),
    "largest of m with eps": lambda h, s, g, m, t: np.maximum(h.b2 * s.v, np.abs(m) + h.eps),
    "largest weighted": lambda h, s, g, m, t: np.maximum(h.b2 * s.v, (1 - h.b2) * np.abs(g)),
    "largest weighted with eps": lambda h, s, g, m, t: np.maximum(h.b2 * s.v, (1 - h.b2) * np.abs(g) + h.eps),
    "largest with eps": lambda h, s, g, m, t: np.maximum(h.b2 * s.v, np.abs(g) + h.eps),
    "belief": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * (g - m) ** 2,
    "belief absolute": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * np.abs(g - m),
    "belief plus": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * (g + m) ** 2,
    "belief old m": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * (g - s.m) ** 2,
    "belief corrected": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * (g - m / (1 - h.b1**t)) ** 2,
    "yogi": lambda h, s, g, m, t: s.v - (1 - h.b2) * np.sign(s.v - g**2) * g**2,
    "yogi wrong sign": lambda h, s, g, m, t: s.v + (1 - h.b2) * np.sign(s.v - g**2) * g**2,
    "absolute": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * np.abs(g),
    "absolute in root": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * np.abs(g),
    "absolute sum": lambda h, s, g, m, t: s.v + np.abs(g),
    "largest square": lambda h, s, g, m, t: np.maximum(s.v, g**2),
    "cubed": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * g**3,
    "product": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * g * m,
    "m squared": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * m**2,
    "with b1": lambda h, s, g, m, t: h.b1 * s.v + (1 - h.b1) * g**2,
    "with power": lambda h, s, g, m, t: h.b2**t * s.v + (1 - h.b2**t) * g**2,
    "another rate": lambda h, s, g, m, t: h.b3 * s.v + (1 - h.b3) * g**2,
    "mixed": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b1) * g**2,
    "swapped": lambda h, s, g, m, t: (1 - h.b2) * s.v + h.b2 * g**2,
    "precedence": lambda h, s, g, m, t: h.b2 * s.v + 1 - h.b2 * g**2,
    "without b2": lambda h, s, g, m, t: s.v + (1 - h.b2) * g**2,
    "both": lambda h, s, g, m, t: h.b2 * (s.v + g**2),
    "both average": lambda h, s, g, m, t: h.b2 * (s.v + (1 - h.b2) * g**2),
    "squared weight": lambda h, s, g, m, t: h.b2 * s.v + ((1 - h.b2) * g) ** 2,
    "minus": lambda h, s, g, m, t: h.b2 * s.v - (1 - h.b2) * g**2,
    "m for v": lambda h, s, g, m, t: h.b2 * m + (1 - h.b2) * g**2,
    "old m for v": lambda h, s, g, m, t: h.b2 * s.m + (1 - h.b2) * g**2,
    "mean": lambda h, s, g, m, t: s.v + (g**2 - s.v) / t,
    "gradient": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * g,
    "twice the gradient": lambda h, s, g, m, t: h.b2 * s.v + (1 - h.b2) * 2 * g,
    "ema from first": lambda h, s, g, m, t: np.where(np.equal(t, 1), g**2, h.b2 * s.v + (1 - h.b2) * g**2),
    "largest with sign": lambda h, s, g, m, t: np.maximum(h.b2 * s.v, g),
}

CORRECTION: Choices = {
    "none": lambda b, b_wrong, b3, t: 1.0,
    "t": lambda b, b_wrong, b3, t: 1 - b**t,
    "t + 1": lambda b, b_wrong, b3, t: 1 - b ** (t + 1),
    "constant": lambda b, b_wrong, b3, t: 1 - b,
    "multiplied": lambda b, b_wrong, b3, t: 1 / (1 - b**t),
    "linear": lambda b, b_wrong, b3, t: 1 - b * t,
    "power": lambda b, b_wrong, b3, t: (1 - b) ** t,
    "root": lambda b, b_wrong, b3, t: np.sqrt(1 - b**t),
    "squared": lambda b, b_wrong, b3, t: (1 - b**t) ** 2,
    "swapped": lambda b, b_wrong, b3, t: 1 - b_wrong**t,
    "another rate": lambda b, b_wrong, b3, t: 1 - b3**t,
    "count": lambda b, b_wrong, b3, t: t,
    "compounding": lambda b, b_wrong, b3, t: _product(lambda i: 1 - b**i, t),
    "subtracted": lambda b, b_wrong, b3, t: 1.0,  # the moment itself is changed, see `_direction`
}

DENOMINATOR: Choices = {
    "none": lambda root, h, v, v_hat, c2: root(v_hat),
    "none with NaN": lambda root, h, v, v_hat, c2: root(v_hat),
    "added to the step": lambda root, h, v, v_hat, c2: root(v_hat),
    "in state": lambda root, h, v, v_hat, c2: root(v_hat) + h.eps,
    "in state only": lambda root, h, v, v_hat, c2: root(v_hat),
    "outside": lambda root, h, v, v_hat, c2: root(v_hat) + h.eps,
    "inside": lambda root, h, v, v_hat, c2: root(v_hat + h.eps),
    "inside and outside": lambda root, h, v, v_hat, c2: root(v_hat + h.eps) + h.eps,
    "before correction": lambda root, h, v, v_hat, c2: (root(v + h.eps_root) + h.eps) / root(np.asarray(c2)),
    "inside before correction": lambda root, h, v, v_hat, c2: root(v + h.eps) / root(np.asarray(c2)),
    "floor": lambda root, h, v, v_hat, c2: np.maximum(root(v_hat), h.eps),
    "after division": lambda root, h, v, v_hat, c2: root(v_hat),  # ε is added in `_divide`
}

VELOCITY: Choices = {
    "trace": lambda h, b, d, k: h.momentum * b + d,
    "ema": lambda h, b, d, k: h.momentum * b + (1 - h.momentum) * d,
    "sum": lambda h, b, d, k: b + h.momentum * d,
    "precedence": lambda h, b, d, k: h.momentum * b + 1 - h.momentum * d,
    "both": lambda h, b, d, k: h.momentum * (b + d),
    "dampened": lambda h, b, d, k: h.momentum * b + (1 - h.dampening) * d if k else d,
    "dampened at once": lambda h, b, d, k: h.momentum * b + (1 - h.dampening) * d,
}

NESTEROV: Choices = {
    "none": lambda h, b, b_new, d, k: b_new,
    "standard": lambda h, b, b_new, d, k: h.momentum * b_new + d,
    "weighted": lambda h, b, b_new, d, k: h.momentum * b_new + (1 - h.momentum) * d,
    "swapped": lambda h, b, b_new, d, k: b_new + h.momentum * d,
    "new velocity": lambda h, b, b_new, d, k: h.momentum**2 * b_new + (1 + h.momentum) * d,
    "and gradient": lambda h, b, b_new, d, k: d + b_new,
    "old velocity": lambda h, b, b_new, d, k: b,
    "without gradient": lambda h, b, b_new, d, k: h.momentum * b_new,
    "old velocity added": lambda h, b, b_new, d, k: (1 + h.momentum) * b_new + h.momentum * b,
    "one minus": lambda h, b, b_new, d, k: (1 - h.momentum) * b_new - h.momentum * b,
    "corrected": lambda h, b, b_new, d, k: b_new / (1 - h.momentum ** (k + 1)),
}

SCHEDULE: Choices = {
    "inverse root": lambda h, k: 1 / np.sqrt(k + 1),
    "inverse": lambda h, k: 1 / (k + 1),
    "inverse time": lambda h, k: 1 / (1 + h.rate_decay * k),
    "inverse time from 1": lambda h, k: 1 / (1 + h.rate_decay * (k + 1)),
    "inverse root time": lambda h, k: 1 / np.sqrt(1 + h.rate_decay * k),
    "inverse root time from 1": lambda h, k: 1 / np.sqrt(1 + h.rate_decay * (k + 1)),
    "compounding": lambda h, k: 1 / _product(lambda i: 1 + h.rate_decay * i, k),
    "compounding from 1": lambda h, k: 1 / _product(lambda i: 1 + h.rate_decay * i, k + 1),
    "corrected": lambda h, k: np.sqrt(1 - h.b2 ** (k + 1)) / (1 - h.b1 ** (k + 1)),
    "exponential": lambda h, k: (1 - h.rate_decay) ** k,
    "exponential from 1": lambda h, k: (1 - h.rate_decay) ** (k + 1),
    "warm-up": lambda h, k: np.minimum(1, h.rate_decay * (k + 1)),
    "linear": lambda h, k: np.maximum(0, 1 - h.rate_decay * k),
    "cosine": lambda h, k: (1 + np.cos(np.pi * np.minimum(1, h.rate_decay * k))) / 2,
    "stepwise from 1": lambda h, k: (1 - h.rate_decay) ** np.floor((k + 1.5) / h.period),
    "stepwise": lambda h, k: (
        (1 - h.rate_decay) ** np.floor((k + 0.5) / h.period)
    ),  # + 0.5: safe if the period is rounded
}

DECAY: Choices = {
    "decoupled": lambda w, rate, p, u: rate * w * p,
    "l2 and decoupled": lambda w, rate, p, u: rate * w * p,
    "after trust": lambda w, rate, p, u: rate * w * p,
    "without rate": lambda w, rate, p, u: w * p,
    "after update": lambda w, rate, p, u: rate * w * (p + u),
    "wrong sign": lambda w, rate, p, u: -rate * w * p,
}


WRONG_NORMS: Choices = {
    "squared global norm": lambda g, norm, leaf: norm**2,
    "global norm of sizes": lambda g, norm, leaf: np.sqrt(np.abs(g).sum(-1, keepdims=True)),
    "global 1-norm": lambda g, norm, leaf: np.abs(g).sum(-1, keepdims=True),
    "global sum of norms": lambda g, norm, leaf: sum(
        np.sqrt((g[..., leaf == i] ** 2).sum(-1, keepdims=True)) for i in np.unique(leaf)
    ),
}


def updates(formula: Formula, inputs: Inputs) -> Iterator[np.ndarray]:
    """Yield the update of each step.

    Args:
      formula: the rule and its hyper-parameters, which are numbers or arrays (settings, 1).
      inputs: the gradients, parameters and schedule.

    Returns:
      An iterator of arrays (elements,), or (settings, elements) if the hyper-parameters are arrays.
    """
    return (update for update, _ in steps(formula, inputs))


def steps(formula: Formula, inputs: Inputs) -> Iterator[tuple[np.ndarray, State]]:
    """Yield the update of each step, see `updates`, and the state after it."""
    formula = _with_first_moment(formula) if formula.rule.velocity == "before division" else formula
    rule, h = formula.rule, HyperParams(*(np.asarray(value, np.float64) for value in formula.hyper))  # 1 / 0 is inf
    zero = np.zeros(np.broadcast_shapes(*(np.shape(value) for value in h), inputs.grads.shape[1:]))
    state = State(
        m=zero + h.first_start,
        v=zero + h.second_start,
        v_max=zero + (np.inf if "smallest" in rule.maximum else 0.0),
        g_mean=zero,
        step_square=zero + h.rescaling_start,
        velocity=zero + h.velocity_start,
        product=1.0,
        g_old=zero,
        g_sum=zero,
    )
    for k, (gradient, p) in enumerate(zip(inputs.grads, inputs.params, strict=True)):
        t = _count(rule.counter, k, inputs)
        rate = h.learning_rate * _rate(rule.schedule, h, inputs.rates, k)
        gradient = _rounded(gradient, rule.rounding) if rule.rounding != "none" else gradient  # noqa: PLW2901
        if rule.accumulation != "none":
            gradient = state.g_sum + gradient  # noqa: PLW2901
            state = state._replace(g_sum=gradient)
        reduced = gradient
        if rule.variance != "none":
            reduced = gradient + h.gamma * h.b1 / (1 - h.b1) * (gradient - state.g_old)
            state = state._replace(g_old=zero + gradient)
        g = _centre(rule.centre, reduced, inputs.row)
        norm = None if inputs.norms is None else inputs.norms[k]
        g = g if rule.clip.startswith("step ") else _clip(rule.clip, g, h, inputs.leaf, norm)
        g_decay = g + _gradient_decay(rule.decay, h.weight_decay, p) if rule.decay in GRADIENT_DECAY else g
        both = (g if rule.decay == "l2 in m" else g_decay), (g if rule.decay == "l2 in v" else g_decay)
        d, state = _direction(formula._replace(hyper=h), state, both, p, t, inputs.leaf)
        d = d + h.weight_decay * p if rule.decay == "in velocity" else d
        if rule.trust in LAMB and rule.decay in ("decoupled", "l2 and decoupled"):
            d = d + h.weight_decay * p
        if rule.trust != "none":
            d = d * _trust_ratio(rule.trust, h, d, p, inputs.leaf)
        u, state = _step(rule, h, state, d if rule.rate_position == "outside" else rate * d, k)
        u = _clip(rule.clip.removeprefix("step "), u, h, inputs.leaf) if rule.clip.startswith("step ") else u
        u = rate * u if rule.rate_position != "inside" else u
        u = u + h.eps if rule.eps == "added to the step" else u
        u = -u if rule.direction == "down" else u
        if rule.decay in DECAY and (rule.trust not in LAMB or rule.decay == "after trust"):
            u = u - DECAY[rule.decay](h.weight_decay, rate, p, u)
        # the first step of some rules does not depend on the hyper-parameters, so all settings share one update
        yield u if np.shape(u) == zero.shape else np.broadcast_to(u, zero.shape), state


def _with_first_moment(formula: Formula) -> Formula:
    """Return the formula with a first moment instead of a velocity before the division, which is the same."""
    rule, hyper = formula
    return Formula(
        rule._replace(first="trace", velocity="none"),
        hyper._replace(b1=hyper.momentum, first_start=hyper.velocity_start),
    )


def _direction(
    formula: Formula, state: State, grads: tuple[np.ndarray, np.ndarray], p: np.ndarray, t: Number, leaf: np.ndarray
) -> tuple[np.ndarray, State]:
    """Return the step before velocity and learning rate; `grads` are the gradients for the second and first moment."""
    rule, h = formula
    g, g_first = grads
    if rule.first_storage in ROUNDED or rule.second_storage in ROUNDED:
        state = _with_rounded_products(rule, h, state)
    m = FIRST[rule.first](h, state, g_first, t)
    v = SECOND[rule.second](h, state, _shared(rule.second_scope, g, leaf), m, t)
    v = np.maximum(state.v, v) if rule.maximum == "in v" else v
    if rule.eps in ("in state", "in state only"):
        v = v + np.where(h.eps_state > 0, h.eps_state, h.eps)
    c1 = CORRECTION[rule.first_correction](h.b1, h.b2, h.b3, t)
    c2 = CORRECTION[rule.second_correction](h.b2, h.b1, h.b3, t)
    m_step = m if rule.first_lag == "none" else state.m
    if rule.first in LION:
        m_step = LION_STEP.get(rule.first, LION_STEP["lion"])(h, state.m, m, g_first)
    v_step = v if rule.second_lag == "none" else state.v
    m_step = m_step - h.b1**t if rule.first_correction == "subtracted" else m_step
    v_step = v_step - h.b2**t if rule.second_correction == "subtracted" else v_step
    m_next = _stored(rule.first_storage, m, state.m, c1)
    v_next = _stored(rule.second_storage, v, state.v, c2)
    if rule.second_storage == "denominator":  # the stored root is not bias-corrected
        v_next = _denominator(rule, h, v, 1.0 if "before correction" in rule.eps else c2)
    state = state._replace(m=m_next, v=v_next)

    if "centered" in rule.second:
        g_mean = h.b2 * state.g_mean + (1 - h.b2) * g
        mean = state.g_mean if rule.second == "centered old mean" else g_mean
        v_step = v_step + mean**2 if rule.second == "centered plus" else v_step - mean**2
        state = state._replace(g_mean=g_mean)
    if rule.maximum == "minimum":
        v_step = np.minimum(state.v_max, v_step)  # 0 at every step, the initial value
    if rule.maximum in EXTREMES:
        extreme = np.minimum if "smallest" in rule.maximum else np.maximum
        v_step = extreme(state.v_max, v_step / c2 if "corrected" in rule.maximum else v_step)
        c2 = 1.0 if rule.maximum in ("corrected", "smallest corrected") else c2
        state = state._replace(v_max=v_step)

    c1 = 1.0 if rule.first == "none" else c1
    numerator, product = _numerator(rule, h, state.product, (m_step, g_first, c1), t)
    state = state._replace(product=product)
    numerator = numerator + h.weight_decay * p if rule.decay == "preconditioned" else numerator
    d = numerator if rule.second == "none" else _divide(rule, h, numerator, v_step, c2)
    d = d if rule.rectification == "none" else _rectify(rule, (h.b1, h.b2), (numerator, c1), g_first, d, t)
    d = {"none": d, "sign": np.sign(d), "tanh": np.tanh(d)}[rule.sign]
    if rule.rescaling != "none":
        d, step_square = _rescale(rule, h, state.step_square, d, g)
        state = state._replace(step_square=step_square)
    d = d + h.weight_decay * m if rule.decay == "of m" else d
    return d, state


def _numerator(
    rule: UpdateRule, h: HyperParams, product: Number, terms: tuple[np.ndarray, np.ndarray, Number], t: Number
) -> tuple[np.ndarray, Number]:
    """Return the numerator of the step, and the product of NAdam's momentum coefficients so far.

    Args:
      rule: the rule.
      h: its hyper-parameters.
      product: the product before the step.
      terms: the first moment, the gradient, and the bias correction of the first moment.
      t: the counter.
    """
    m, g, c1 = terms
    if rule.first == "none":
        return g, product
    if rule.numerator != "nadam":
        if rule.numerator == "m":
            return np.asarray(m / c1), product
        if rule.numerator == "plus gradient":
            return np.asarray(m / c1 + g), product
        if rule.numerator == "lookahead":
            return np.asarray((h.b1 * m + (1 - h.b1) * g) / c1), product
        return np.asarray(h.b1 * m / c1 + (1 - h.b1) * g), product
    mu, mu_next = (_nadam_momentum(h, step, rule.momentum_schedule) for step in (t, t + 1))
    mu_next = mu if rule.ahead_factor == "current everywhere" else mu_next
    next_product = mu**t if rule.product_storage == "power" else product * mu
    if rule.product_storage == "float32":
        next_product = np.float64(np.float32(product) * np.float32(mu))
    product = np.where(np.isinf(h.momentum_decay), h.b1**t, next_product)  # β₁ᵗ if the momentum is constant
    factor = {"current": mu, "none": 1.0, "swapped": 1 - h.b1}.get(rule.ahead_factor, mu_next)
    weight = {"1 - b1": 1 - mu, "one": 1.0, "none": 0.0}[rule.gradient_weight]
    weight = h.b1 if rule.ahead_factor == "swapped" else weight
    correction = {"next": 1 - product * mu_next, "current": 1 - product, "none": 1.0}[rule.ahead_correction]
    share = weight * g / (1 - product if rule.gradient_correction == "t" else 1.0)
    return np.asarray(factor * m / correction + share), product


def _rescale(
    rule: UpdateRule, h: HyperParams, s: np.ndarray, d: np.ndarray, g: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return Adadelta's step, and the new average of its squares."""

    def step(s: np.ndarray) -> np.ndarray:
        if rule.rescaling == "adadelta without root":
            return np.asarray(d * (s + h.eps))
        return np.asarray(d * (np.sqrt(s) + h.eps if rule.rescaling_eps == "outside" else np.sqrt(s + h.eps)))

    square = {"gradients": g**2, "sizes": np.abs(step(s))}.get(rule.rescaling_average, step(s) ** 2)
    other = {"sum": s + square, "trace": h.b2 * s + square, "none": s}
    new_s = np.asarray(other.get(rule.rescaling_average, h.b2 * s + (1 - h.b2) * square))
    return step(new_s if rule.rescaling_lag == "none" else s), new_s


def _stored(storage: str, new: np.ndarray, old: np.ndarray, correction: Number) -> np.ndarray:
    """Return the moment to store for the next step."""
    if storage in ROUNDED or storage in STORED:
        return _rounded(new, storage)
    if storage == "root":
        return np.asarray(np.sqrt(new))
    return {"corrected": new / correction, "none": old}.get(storage, new)


def _with_rounded_products(rule: UpdateRule, h: HyperParams, state: State) -> State:
    """Adjust moments so that their products with decay rates are rounded, as JAX rounds 0.9 · m if m is bfloat16."""
    for field, storage, rate in (("m", rule.first_storage, h.b1), ("v", rule.second_storage, h.b2)):
        if storage in ROUNDED:
            product = _rounded(_rounded(rate, storage) * getattr(state, field), storage)
            state = state._replace(**{field: product / rate})
    return state


def roundings(formula: Formula) -> Iterator[Formula]:
    """Yield a formula, and with float16 also the one that rounds via float32.

    Many processors and PyTorch convert float64 to float16 via float32. They round twice, so the last bit may differ
    from a direct conversion.
    """
    yield formula
    places = [place for place in formula.rule._fields if str(getattr(formula.rule, place)).startswith("float16")]
    if places:
        twice = {place: getattr(formula.rule, place) + VIA_FLOAT32 for place in places}
        yield formula._replace(rule=formula.rule._replace(**twice))


def _rounded(x: Any, storage: str) -> Any:
    """Round numbers to the dtype of a storage, "float16" or "bfloat16", and return them as float64."""
    x = np.asarray(x).astype(np.float32) if storage.endswith(VIA_FLOAT32) else np.asarray(x)
    return x.astype(ml_dtypes.bfloat16 if storage.startswith("bfloat16") else np.float16).astype(np.float64)


def _count(counter: str, k: int, inputs: Inputs) -> Number:
    """Return the counter t of the bias corrections at step k = 0, 1, …"""
    if counter == "per leaf":
        return k * inputs.leaf_count + inputs.leaf + 1
    if counter == "per leaf and step":
        return k * (inputs.leaf_count + 1) + inputs.leaf + 2
    return {"t": k + 1, "ahead": k + 2, "behind": k, "late": max(k, 1), "stuck": 1, "double": 2 * (k + 1)}[counter]


def _rate(schedule: str, h: HyperParams, rates: np.ndarray, k: int) -> Number:
    """Return the learning rate at step k = 0, 1, … relative to the hyper-parameter."""
    index = {"next": min(k + 1, len(rates) - 1), "previous": max(k - 1, 0)}.get(schedule, k)
    factor = SCHEDULE[schedule](h, k) if schedule in SCHEDULE else 1.0
    return float(rates[index]) * factor


def _product(factor: Callable[[int], Number], t: Number) -> Number:
    """Return factor(1) · factor(2) · … · factor(t)."""
    counts = range(1, int(np.max(t)) + 1)
    return math.prod(factor(i) if np.ndim(t) == 0 else np.where(i <= t, factor(i), 1.0) for i in counts)


def _gradient_decay(decay: str, w: Number, p: np.ndarray) -> np.ndarray:
    """Return the weight decay that is added to the gradient."""
    if decay == "l1":
        return np.asarray(w * np.sign(p))
    return np.asarray(-w * p if decay == "l2 wrong sign" else w * p)


def _centre(centre: str, g: np.ndarray, row: np.ndarray) -> np.ndarray:
    if centre == "none":
        return g
    sums = np.stack([np.bincount(row + 1, setting) for setting in np.atleast_2d(g)])
    means = (sums / np.maximum(np.bincount(row + 1), 1))[:, row + 1]
    return np.where(row < 0, g, g - means.reshape(g.shape))


def _shared(scope: str, g: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    """Return the gradient that a second moment averages: that of each element, or one norm for many elements."""
    if scope == "element":
        return g
    if scope == "global norm":
        return np.broadcast_to(np.sqrt((g**2).sum(-1, keepdims=True)), g.shape)
    norms = _leaf_norms(g, leaf)
    return norms / np.sqrt(np.bincount(leaf)[leaf]) if scope == "leaf mean" else norms


def _clip(
    clip: str, g: np.ndarray, h: HyperParams, leaf: np.ndarray, global_norm: np.ndarray | None = None
) -> np.ndarray:
    """Return clipped gradients or steps; the global norm is computed from them if it is None."""
    if clip == "none":
        return g
    bound = h.clip
    if clip == "value":
        return np.clip(g, -bound, bound)
    if "leaf norm" in clip:
        norm = _leaf_norms(g, leaf)
    else:
        norm = np.sqrt((g**2).sum(-1, keepdims=True)) if global_norm is None else np.asarray(global_norm)
    if clip in WRONG_NORMS:
        norm = WRONG_NORMS[clip](g, norm, leaf)
    if "unit" in clip:
        return g / np.where(norm + h.eps > 0, norm + h.eps, 1.0)
    if "scaled" in clip:
        return g * bound / np.where(norm > 0, norm, 1.0)
    return g * np.where(norm > bound, bound / np.where(norm > 0, norm, 1.0), 1.0)


def _nadam_momentum(h: HyperParams, t: Number, schedule: str = "half") -> Number:
    """Return NAdam's momentum at step t, β₁ (1 - ½ · .96^(t ψ)), which is β₁ for ψ = ∞."""
    return h.b1 * (1 - (0.5 if schedule == "half" else 1.0) * 0.96 ** (t * h.momentum_decay))


def _divide(rule: UpdateRule, h: HyperParams, numerator: np.ndarray, v: np.ndarray, c2: Number) -> np.ndarray:
    """Divide the numerator by the root of the second moment, with ε added as `rule.eps` says."""
    denominator = _denominator(rule, h, v, c2)
    if rule.eps == "after division":
        return numerator * (1 / denominator + h.eps)
    if rule.root == "multiplied":
        return np.asarray(numerator * denominator)
    ratio = numerator / denominator
    if rule.eps in ("none with NaN", "added to the step") or np.all(denominator):
        return ratio
    return np.where(denominator == 0, np.where(numerator == 0, 0.0, np.nan), ratio)  # 0 / 0 gives a step of 0


def _denominator(rule: UpdateRule, h: HyperParams, v: np.ndarray, c2: Number) -> np.ndarray:
    """Return the root of the second moment, with ε added as `rule.eps` says."""

    def root(x: np.ndarray) -> np.ndarray:
        if is_linear(rule):
            return x
        if rule.root == "cube":
            return np.asarray(np.cbrt(x))
        return np.asarray(np.sqrt(np.sqrt(x)) if rule.root == "twice" else np.sqrt(x))

    return np.asarray(DENOMINATOR[rule.eps](root, h, v, v / c2 + h.eps_root, c2))


def _rectify(
    rule: UpdateRule,
    rates: tuple[Number, Number],
    moment: tuple[np.ndarray, Number],
    g: np.ndarray,
    d: np.ndarray,
    t: Number,
) -> np.ndarray:
    """Return RAdam's step: `d` times r if ρ is large enough, else the numerator of `d`, the gradient or 0.

    Args:
      rule: the rule.
      rates: the decay rates β₁ and β₂.
      moment: the first moment, divided by its bias correction, and the bias correction.
      g: the gradient.
      d: the step before the rectification.
      t: the counter.
    """
    (b1, b2), (numerator, c1) = rates, moment
    rho_max = 2 / (1 - b2) - (0 if rule.rho == "wrong limit" else 1)
    n = t + 1 if rule.rho == "t + 1" else t
    rho = rho_max - (1 if rule.rho == "without 2" else 2) * n * b2**n / (1 - b2**n)
    if rule.rho in ("precedence", "with b1"):
        rho = rho_max - 2 * n * b2**n / (1 - b1**n) if rule.rho == "with b1" else rho_max - 2 * n * b2**n - b2**n
    large = rho > (4 if rule.rectification == "above 4" else 5)
    safe = np.where(large, rho, 6.0)
    square = (safe - 4) * (safe - 2) * rho_max / ((rho_max - 4) * (rho_max - 2) * safe)
    r = {"without root": square, "inverted": 1 / np.sqrt(square), "missing": 1.0}.get(rule.rectifier, np.sqrt(square))
    d = d * c1 if rule.rectifier == "raw m" else d
    below = {"corrected m": numerator, "raw m": numerator * c1, "gradient": g}.get(rule.below, np.zeros_like(numerator))
    return np.asarray(np.where(large, r * d, below))


def _trust_ratio(trust: str, h: HyperParams, d: np.ndarray, p: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    size, step = _leaf_norms(p, leaf), _leaf_norms(d, leaf)
    size = np.minimum(size, 10.0) if trust == "lamb clipped" else size
    size, step = (step, size) if trust == "lamb inverted" else (size, step)
    return np.where((size == 0) | (step == 0), 1.0, h.trust * size / np.where(step == 0, 1.0, step))


def _leaf_norms(array: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    """Return the norm of each element's leaf."""
    sums = np.stack([np.bincount(leaf, row) for row in np.atleast_2d(array) ** 2])
    return np.sqrt(sums)[:, leaf].reshape(array.shape)


def _step(rule: UpdateRule, h: HyperParams, state: State, d: np.ndarray, k: int) -> tuple[np.ndarray, State]:
    """Update the velocity with the direction `d`; return the step and the new state."""
    if rule.velocity == "none":
        return d, state
    b, storage = state.velocity, rule.velocity_storage
    if storage in ROUNDED:  # as JAX rounds 0.9 · b if b is bfloat16
        b = _rounded(_rounded(h.momentum, storage) * b, storage) / h.momentum
    b_new = VELOCITY[rule.velocity](h, b, d, k)
    step = NESTEROV[rule.nesterov](h, b, b_new, d, k)
    return step, state._replace(velocity=step if storage == "look-ahead" else _stored(storage, b_new, b, 1.0))
