"""Equations are read from programs with pairs of mistakes, in forms that combine several terms, roots and factors."""

import numpy as np
import pytest

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


class Program:
    """An optimizer of NumPy lines with the arrays m, v, b, s and w, which it stores in dicts."""

    def __init__(self, text):
        self.code, self.arrays, self.t = compile(text, "<program>", "exec"), {name: {} for name in "mvbsw"}, 0

    def step(self, params, grads):
        self.t += 1
        for key, g in grads.items():
            values = {name: array.get(key, np.zeros_like(g)) for name, array in self.arrays.items()}
            names = {"np": np, "g": g, "p": params[key], "t": self.t, **values}
            with np.errstate(all="ignore"):
                exec(self.code, names)
            params[key] = names["p"]
            for name, array in self.arrays.items():
                array[key] = names[name]
        return params


def lines_of(program, changes):
    text = program
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    rule, hyper = LIBRARY_RULES[REFERENCES[program]]
    numbers = {ADADELTA: {"learning_rate": 1.0}, RMSPROP: RMSPROP_NUMBERS, CENTERED: RMSPROP_NUMBERS}.get(program, {})
    rule = rule._replace(velocity="trace") if program in (RMSPROP, CENTERED) else rule
    adapter = build(Program(text), None, None, None, None)
    reference = Formula(rule, hyper._replace(**numbers))
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
        {"m": "0.98 m + 0.02 g", "θ": "θ - 0.001 sign((0.95 m_old + 0.05 g)) - 1e-06 θ"},
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


T = np.arange(1, 61)
SCHEDULES = [
    (0.01 / np.cumprod(1 + 0.01 * (T - 1)), "0.01 / Πₛ₌₁ᵗ (1 + 0.01 (s - 1))"),
    (0.9 * (T + 1) / (T + 4), "0.9 (t + 1) / (t + 4)"),
    (np.minimum(0.81, 0.9 * (T + 1) / (T + 4)), "min(0.9 (t + 1) / (t + 4), 0.81)"),
    (-np.minimum(0.81, 0.9 * (T + 1) / (T + 4)), "-min(0.9 (t + 1) / (t + 4), 0.81)"),
]


@pytest.mark.parametrize(("values", "text"), SCHEDULES)
def test_the_formula_of_a_schedule_is_found(values, text):
    assert str(factor_of(values, (0.9, 0.999))) == text


def test_one_small_coefficient_at_the_beginning_is_no_schedule():
    assert str(factor_of(np.where(T == 1, 0.001, 1.0), (0.9,))) == "[0.001, 1 from t = 2]"
