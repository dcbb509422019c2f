"""Equations are read from programs with pairs of mistakes, in forms that combine several terms, roots and factors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optcheck_programs import Program

from nnjax.optcheck.calling.factories import build
from nnjax.optcheck.reading.coefficients import factor_of
from nnjax.optcheck.reading.difference import read_difference
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.update_rule import Formula
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.gradient_script import gradient_script, second_script

SCRIPTS = (gradient_script(), second_script())
ADAM = """
m = 0.9 * m + 0.1 * g
v = 0.999 * v + 0.001 * g**2
p = p - 0.001 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
"""
NADAM = """
m = 0.9 * m + 0.1 * g
v = 0.999 * v + 0.001 * g**2
p = p - 0.001 * (0.9 * m / (1 - 0.9**(t + 1)) + 0.1 * g / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
"""
RMSPROP = """
v = 0.9 * v + 0.1 * g**2
b = 0.9 * b + g / (np.sqrt(v) + 1e-8)
p = p - 0.01 * b
"""
CENTERED = """
w = 0.9 * w + 0.1 * g
v = 0.9 * v + 0.1 * g**2
b = 0.9 * b + g / (np.sqrt(v - w**2) + 1e-8)
p = p - 0.01 * b
"""
ADADELTA = """
v = 0.9 * v + 0.1 * g**2
u = np.sqrt(s + 1e-6) / np.sqrt(v + 1e-6) * g
p = p - u
s = 0.9 * s + 0.1 * u**2
"""
LION = """
c = 0.9 * m + 0.1 * g
p = p - 0.001 * np.sign(c) - 1e-6 * p
m = 0.99 * m + 0.01 * g
"""
ADAGRAD = """
v = v + g**2
p = p - 0.01 * g / (np.sqrt(v) + 1e-10)
"""
TRACE = {"velocity": "trace"}
RMSPROP_NUMBERS = {"learning_rate": 0.01, "b2": 0.9}
REFERENCES = {
    ADAM: "torch.adam",
    NADAM: "optax.nadam",
    RMSPROP: "torch.rmsprop",
    CENTERED: "torch.rmsprop_centered",
    ADADELTA: "torch.adadelta",
    LION: "optax.lion",
    ADAGRAD: "torch.adagrad",
}


def lines_of(program, changes):
    text = program
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    numbers = {ADADELTA: {"learning_rate": 1.0}, RMSPROP: RMSPROP_NUMBERS, CENTERED: RMSPROP_NUMBERS}.get(program, {})
    return read_lines(text, REFERENCES[program], numbers, TRACE if program in (RMSPROP, CENTERED) else {})


def read_lines(text, name, numbers, choices):
    rule, hyper = LIBRARY_RULES[name]
    adapter = build(Program(text), None, None, None, None)
    reference = Formula(rule._replace(**choices), hyper._replace(**numbers))
    lines = read_difference(adapter, reference, SCRIPTS, ("norm/scale", "dense/w"), Deadline(None))
    return {line.name: line.candidate for line in lines}


M, V = "0.9 m + 0.1 g", "0.999 v + 0.001 g²"
CASES = [  # program, changes, lines that must be read
    (
        ADAM,
        [("(np.sqrt(v / (1 - 0.999**t)) + 1e-8)", "np.sqrt(v + 1e-8) - 1e-4 * p"), ("0.1 * g", "g")],
        {"m": "0.9 m + g", "v": V, "θ": "θ - 0.001 m / (1 - 0.9ᵗ) / √(v + 1e-08) - 0.0001 θ"},
    ),
    (
        ADAM,
        [("+ 0.1 * g", "+ 0.1 * g + 0.01 * np.sign(g)"), ("(np.sqrt(v / (1 - 0.999**t)) + 1e-8)", "(v + 1e-6)")],
        {"m": "0.9 m + 0.1 g + 0.01 sign(g)", "v": V, "θ": "θ - 0.001 m / (1 - 0.9ᵗ) / (v + 1e-06)"},
    ),
    (
        ADAM,
        [("0.999 * v + 0.001 * g**2", "v + 0.001 * (g - v)**2"), ("0.1 * g\n", "0.1 * g + 0.01 * p\n")],
        {"m": "0.9 m + 0.1 g + 0.01 θ", "v": "v + 0.001 (g - v_old)²"},
    ),
    (
        NADAM,
        [("(np.sqrt(v / (1 - 0.999**t)) + 1e-8)", "np.sqrt(v + 1e-6)"), ("(1 - 0.9**(t + 1))", "1")],
        {"m": M, "v": V, "θ": "θ - (0.0009 m + 0.0001 g / (1 - 0.9ᵗ)) / √(v + 1e-06)"},
    ),
    (
        RMSPROP,
        [("(np.sqrt(v) + 1e-8)", "np.sqrt(v + 1e-6)"), ("0.9 * b + g", "0.8 * b + 0.2 * g")],
        {"v": "0.9 v + 0.1 g²", "b": "0.8 b + 0.2 g / √(v + 1e-06)"},
    ),
    (
        CENTERED,
        [("(np.sqrt(v - w**2) + 1e-8)", "np.sqrt(v - w**2 + 1e-4)"), ("0.9 * b + g", "0.9 * b + 0.1 * g")],
        {"b": "0.9 b + 0.1 g / √(v - ḡ² + 0.0001)"},
    ),
    (
        ADADELTA,
        [
            ("np.sqrt(s + 1e-6) / np.sqrt(v + 1e-6)", "(np.sqrt(v) + 1e-6) / np.sqrt(s + 1e-6)"),
            ("0.1 * g**2", "g**2"),
        ],
        {"v": "0.9 v + g²", "θ": "θ - g (√v + 1e-06) / √(s_old + 1e-06)"},
    ),
    (
        ADADELTA,
        [("np.sqrt(v + 1e-6)", "(v + 1e-6)"), ("0.9 * v + 0.1 * g**2", "0.95 * v + g**2")],
        {"v": "0.95 v + g²", "θ": "θ - g √(s_old + 1e-06) / (v + 1e-06)"},
    ),
    (
        LION,
        [("0.9 * m + 0.1 * g\np", "0.95 * m + 0.05 * g\np"), ("0.99 * m + 0.01 * g", "0.98 * m + 0.02 * g")],
        {"m": "0.98 m + 0.02 g", "θ": "θ - 0.001 sign(0.95 m_old + 0.05 g) - 1e-06 θ"},
    ),
    (
        ADAGRAD,
        [("p - 0.01", "p - 0.01 * 0.99**t"), ("+ 1e-10)", "+ 1e-6) - 1e-4 * 0.99**t * p")],
        {"v": "v + g²", "θ": "θ - 0.01 0.99ᵗ g / (√v + 1e-06) - 0.0001 0.99ᵗ θ"},
    ),
    (
        ADAM,
        [("0.999 * v", "0.999 * np.abs(m)"), ("+ 1e-8)", "+ 1e-8) - 1e-5 * m**2")],
        {"m": M, "v": "0.001 g² + 0.999 |m|"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("program", "changes", "truth"), CASES)
def test_both_mistakes_are_read(program, changes, truth):
    lines = lines_of(program, changes)
    assert {name: lines.get(name) for name in truth} == truth


def test_elements_that_overflow_are_left_out():
    lines = lines_of(ADAGRAD, [("v + g**2", "v + g**2 + v**3"), ("0.01 * g", "0.02 * g")])
    assert lines["θ"] == "θ - 0.02 g / (√v + 1e-10)"


MOMENTUM = """
b = 0.9 * b + g
p = p - 0.01 * b
"""
MOMENTUM_REFERENCE = ("torch.sgd_momentum", {"learning_rate": 0.01}, {})
NORMS_AND_BOUNDS = [  # program, lines that must be read
    ("g = g * min(1, 1 / np.linalg.norm(g))" + MOMENTUM, {"b": "0.9 b + min(1, 1/‖g‖) g", "θ": "θ - 0.01 b"}),
    ("g = g * min(1, 1 / (g**2).sum())" + MOMENTUM, {"b": "0.9 b + min(1, 1/‖g‖²) g", "θ": "θ - 0.01 b"}),
    ("g = g * min(1, 1 / np.abs(g).sum())" + MOMENTUM, {"b": "0.9 b + min(1, 1/‖g‖₁) g", "θ": "θ - 0.01 b"}),
    ("g = g / np.sqrt(np.mean(g**2))" + MOMENTUM, {"b": "0.9 b + g / rms(g)", "θ": "θ - 0.01 b"}),
    ("g = g - g.mean()" + MOMENTUM, {"b": "0.9 b + g - mean(g)", "θ": "θ - 0.01 b"}),
    (MOMENTUM.replace("0.01 * b", "0.01 * b / np.linalg.norm(b)"), {"b": "0.9 b + g", "θ": "θ - 0.01 b / ‖b‖"}),
    (MOMENTUM.replace("b + g", "b + g\nb = np.clip(b, -1, 1)"), {"b": "clip(0.9 b + g, ±1)", "θ": "θ - 0.01 b"}),
    (MOMENTUM.replace("0.01 * b", "np.clip(0.01 * b, -0.1, 0.1)"), {"b": "0.9 b + g", "θ": "θ - clip(0.01 b, ±0.1)"}),
    (MOMENTUM.replace("p - 0.01 * b", "p - 0.01 * np.tanh(b)"), {"b": "0.9 b + g", "θ": "θ - 0.01 tanh(b)"}),
    (
        MOMENTUM.replace("0.01 * b", "0.01 * b - 0.003 * (g - x)") + "x = g",
        {"b": "0.9 b + g", "θ": "θ - 0.01 b - 0.003 g + 0.003 g_old"},
    ),
]


@pytest.mark.parametrize(("text", "truth"), NORMS_AND_BOUNDS)
def test_norms_bounds_and_old_gradients_are_read(text, truth):
    lines = read_lines(text, *MOMENTUM_REFERENCE)
    assert {name: lines.get(name) for name in truth} == truth


def test_tanh_instead_of_sign_is_read_with_decay():
    lines = lines_of(LION, [("np.sign(c)", "np.tanh(c)")])
    assert lines["θ"] == "θ - 0.001 tanh(0.9 m_old + 0.1 g) - 1e-06 θ"


def test_the_square_of_a_shifted_gradient_is_read():
    assert lines_of(ADAM, [("g**2", "(g + 0.1)**2")])["v"] == "0.999 v + 0.001 g² + 0.0002 g + 1e-05"


T = np.arange(1, 61)
SCHEDULES = [
    (0.01 / np.cumprod(1 + 0.01 * (T - 1)), "0.01 / Πₛ₌₁ᵗ (1 + 0.01 (s - 1))"),
    (0.9 * (T + 1) / (T + 4), "0.9 (t + 1) / (t + 4)"),
    (np.minimum(0.81, 0.9 * (T + 1) / (T + 4)), "min(0.9 (t + 1) / (t + 4), 0.81)"),
    (0.02 / (1 + 0.03 * T), "0.02 / (1 + 0.03 t)"),
    (0.02 / (1 + 0.03 * (T - 1)), "0.02 / (1 + 0.03 (t - 1))"),
    (0.02 / np.sqrt(T) * (1 + 3e-6 * np.sin(T)), "0.02 / √t"),
    (0.02 * np.minimum(1, T / 10) ** 2, "0.02 min(1, 0.1 t)²"),
    (0.01 * (1 + np.cos(np.pi * T / 100)), "0.01 (1 + cos(π t / 100))"),
    (0.02 * np.minimum(T**-0.5, T * 10**-1.5), "0.02 min(0.0316228 t, 1 / √t)"),
    (np.where(T == 1, 0, 0.02 * (1 - 0.9**T)), "0.02 [0, 1 from t = 2] (1 - 0.9ᵗ)"),
    (np.where(T == 1, -0.02, 0.0), "-[0.02, 0 from t = 2]"),
    (-np.minimum(0.81, 0.9 * (T + 1) / (T + 4)), "-min(0.9 (t + 1) / (t + 4), 0.81)"),
]


@pytest.mark.parametrize(("values", "text"), SCHEDULES)
def test_the_formula_of_a_schedule_is_found(values, text):
    assert str(factor_of(values, (0.9, 0.999))) == text


def test_one_small_coefficient_at_the_beginning_is_no_schedule():
    assert str(factor_of(np.where(T == 1, 0.001, 1.0), (0.9,))) == "[0.001, 1 from t = 2]"


NESTEROV_FROM_GRADIENT = """
d = g + 0.004 * p
b = 0.8 * (g if t == 1 else b) + d
p = p - 0.01 * (d + 0.8 * b)
"""
STORED_GRADIENT = """
d = g - 0.002 * p
e = 0.8 * (g if t == 1 else b) + d
b = d
p = p - 0.01 * e
"""
CENTERED_BY_GRADIENT = """
v = 0.9 * (np.ones_like(g) if t == 1 else v) + 0.1 * g**2
mean = 0.1 * g
b = 0.9 * b + g / (np.sqrt(v + mean**2) + 1e-6)
p = p - 0.01 * b
"""
TRIPLES = [  # reference, its numbers, program, lines that must be read
    (
        ("torch.adagrad", {"learning_rate": 0.02, "rate_decay": 0.03, "eps": 1e-6}, {"schedule": "inverse time"}),
        "v = v + g**2\np = p - 0.02 / (1 + 0.03 * t) * np.sign(g) / (v + 1e-6)",
        {"v": "v + g²", "θ": "θ - 0.02 sign(g) / (1 + 0.03 t) / (v + 1e-06)"},
    ),
    (
        ("torch.adadelta", {"learning_rate": 0.8, "b2": 0.93, "eps": 1e-6}, {}),
        "v = 0.93 * v + 0.07 * g**2\nu = (s + 1e-6) / np.sqrt(v + 1e-6) * g\ns = 0.8 * s + 0.2 * u**2\n"
        "p = p - 0.8 * u - 1e-4 * p",
        {
            "s": "0.8 s + 0.2 g² (s + 1e-06)² / (v + 1e-06)",
            "θ": "θ - 0.8 g (s_old + 1e-06) / √(v + 1e-06) - 0.0001 θ",
        },
    ),
    (
        ("torch.adadelta", {"learning_rate": 0.8, "b2": 0.93, "eps": 1e-6}, {}),
        "v = 0.93 * v + 0.07 * g**2\nu = (s + 1e-6) / np.sqrt(v + 1e-6) * g\ns = 0.93 * s + u**2\np = p - u",
        {"s": "0.93 s + u²", "θ": "θ - g (s_old + 1e-06) / √(v + 1e-06)"},
    ),
    (
        ("optax.lion", {"learning_rate": 3e-4, "b1": 0.9, "b2": 0.97, "weight_decay": 0.1}, {}),
        "c = 0.9 * m + 0.1 * g\np = p - 3e-4 * c + 3e-5 * p\nm = 0.03 * m + 0.97 * g",
        {"m": "0.03 m + 0.97 g", "θ": "θ - 0.0003 (0.9 m_old + 0.1 g) + 3e-05 θ"},
    ),
    (
        ("optax.lion", {"learning_rate": 3e-4, "b1": 0.9, "b2": 0.97, "weight_decay": 0.1}, {}),
        "c = 0.9 * np.sign(m) + 0.1 * np.sign(g)\np = p - 3e-4 * c + 3e-5 * p\nm = 0.97 * m + 0.03 * c",
        {
            "m": "0.97 m + 0.027 sign(m) + 0.003 sign(g)",
            "θ": "θ - 3e-05 sign(g) - 0.00027 sign(m_old) + 3e-05 θ",
        },
    ),
    (
        ("torch.sgd_momentum", {"learning_rate": 0.01, "momentum": 0.8}, {}),
        NESTEROV_FROM_GRADIENT,
        {
            "b": "0.8 b + [1.8, 1 from t = 2] g + 0.004 θ",
            "θ": "θ - 0.018 b + [0.008, 0 from t = 2] g + 0.008 b_old",
        },
    ),
    (
        ("torch.sgd_momentum", {"learning_rate": 0.01, "momentum": 0.8}, {}),
        STORED_GRADIENT,
        {"b": "g - 0.002 θ", "θ": "θ - 0.01 b - [0.008, 0 from t = 2] g - 0.008 b_old"},
    ),
    (
        ("torch.rmsprop_centered", RMSPROP_NUMBERS | {"eps": 1e-6}, TRACE),
        CENTERED_BY_GRADIENT,
        {"v": "0.9 v + 0.1 g²", "v₀": "1", "b": "0.9 b + g / (√(v + 0.01 g²) + 1e-06)"},
    ),
]


@pytest.mark.parametrize(("reference", "text", "truth"), TRIPLES)
def test_three_mistakes_are_read(reference, text, truth):
    lines = read_lines(text, *reference)
    assert {name: lines.get(name) for name in truth} == truth


def test_a_reference_of_unknown_formula_may_be_lion_with_a_schedule():
    def rate(count):
        return 2e-4 + 4e-5 * jnp.minimum(count, 20)

    def lion(b1):
        def update(step, grads, state):
            params, m = state
            directions = jax.tree.map(lambda m, g: jnp.sign(b1 * m + (1 - b1) * g), m, grads)
            m = jax.tree.map(lambda m, g: 0.99 * m + 0.01 * g, m, grads)
            return jax.tree.map(lambda p, d: p - rate(step) * (d + 0.05 * p), params, directions), m

        return (lambda params: (params, jax.tree.map(jnp.zeros_like, params))), update, (lambda state: state[0])

    reference = optax.lion(rate, b1=0.9, b2=0.99, weight_decay=0.05)
    script = gradient_script()
    with jax.numpy_dtype_promotion("standard"):
        adapters = build(lion(0.1)), build(reference)
        lines = read_difference(*adapters, [script], ("norm/scale",), Deadline(None))
    step = {line.name: (line.candidate, line.reference) for line in lines if line.differs}
    decay, factor = "min(2e-06 (t + 4), 5e-05) θ", "θ - min(4e-05 (t + 4), 0.001)"
    assert step == {"θ": (f"{factor} sign(0.1 m_old + 0.9 g) - {decay}", f"{factor} sign(0.9 m_old + 0.1 g) - {decay}")}
