"""Equations are read from the updates and arrays of optimizers that no known rule describes."""

import functools
import json

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st
from optcheck_programs import Program

from nnjax import optcheck
from nnjax.optcheck.calling.factories import build
from nnjax.optcheck.reading import difference
from nnjax.optcheck.reading.check_text import holds_as_text, names_in_text
from nnjax.optcheck.reading.coefficients import factor_of
from nnjax.optcheck.reading.difference import certain_lines, read_difference
from nnjax.optcheck.reading.terms import Leaf
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.update_rule import Formula, HyperParams, UpdateRule
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.gradient_script import gradient_script, second_script

SCRIPTS = (gradient_script(), second_script())
ADAM = """
m = 0.9 * m + (1 - 0.9) * g
v = 0.999 * v + (1 - 0.999) * g**2
p = p - 0.001 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
"""
ADAM_STEP = "θ - 0.001 √(1 - 0.999ᵗ) m / (1 - 0.9ᵗ) / (√v + 1e-08 √(1 - 0.999ᵗ))"
ADAM_SUM = "0.001 * (m / (1 - 0.9**t)"
MOMENTUM = """
b = 0.9 * b + g
p = p - 0.01 * b
"""
RMSPROP = """
v = 0.9 * v + 0.1 * g**2
b = 0.9 * b + g / (np.sqrt(v) + 1e-8)
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
AMSGRAD = """
m = 0.9 * m + (1 - 0.9) * g
v = 0.999 * v + (1 - 0.999) * g**2
w = np.maximum(w, v)
p = p - 0.001 * (m / (1 - 0.9**t)) / (np.sqrt(w / (1 - 0.999**t)) + 1e-8)
"""
ADAGRAD = """
v = v + g**2
p = p - 0.01 * g / (np.sqrt(v) + 1e-10)
"""
REFERENCES = {  # program: the library rule and the numbers that differ from its defaults
    ADAM: ("torch.adam", {}),
    MOMENTUM: ("torch.sgd_momentum", {"learning_rate": 0.01}),
    ADADELTA: ("torch.adadelta", {"learning_rate": 1.0}),
    LION: ("optax.lion", {"weight_decay": 1e-3}),
    AMSGRAD: ("torch.amsgrad", {}),
    ADAGRAD: ("torch.adagrad", {"learning_rate": 0.01}),
    RMSPROP: ("torch.rmsprop", {"learning_rate": 0.01, "b2": 0.9}),
}


def lines_of(text, reference):
    adapter = build(Program(text), None, None, None, None)
    return read_difference(adapter, reference, SCRIPTS, ("norm/scale", "dense/w"), Deadline(None))


def reference_of(text):
    name, numbers = REFERENCES[text]
    rule, hyper = LIBRARY_RULES[name]
    rule = rule._replace(velocity="trace") if text == RMSPROP else rule
    return Formula(rule, hyper._replace(**numbers))


@pytest.mark.parametrize("text", REFERENCES)
def test_a_program_without_mistakes_has_the_equations_of_the_reference(text):
    assert lines_of(text, reference_of(text)) == ()


MISTAKES = [  # program, old text, new text, the lines that differ
    (ADAM, "(1 - 0.9) * g", "1 - 0.9 * g", {"m": "0.9 m - 0.9 g + 1"}),
    (ADAM, "0.999 * v", "0.999 * np.abs(m)", {"v": "0.001 g² + 0.999 |m|"}),
    (ADAM, "0.9 * m +", "0.9 * m + 0.01 * p +", {"m": "0.9 m + 0.1 g + 0.01 θ"}),
    (ADAM, "g**2", "(g + 0.01 * p)**2", {"v": "0.999 v + 0.001 (g + 0.01 θ)²"}),
    (ADAM, "g**2", "g * m", {"v": "0.999 v + 0.001 g m"}),
    (ADAM, "0.9**t)", "0.99**t)", {"θ": ADAM_STEP.replace("0.9ᵗ", "0.99ᵗ")}),
    (ADAM, "(m / (1 - 0.9**t))", "(m + g)", {"θ": ADAM_STEP.replace("m / (1 - 0.9ᵗ)", "(m + g)")}),
    (ADAM, "+ 1e-8)", "+ 1e-8) - 1e-5 * m", {"θ": f"{ADAM_STEP} - 1e-05 m"}),
    (ADAM, "p - 0.001", "p - 0.001 / np.sqrt(t)", {"θ": ADAM_STEP.replace("/ (1 - 0.9ᵗ)", "/ ((1 - 0.9ᵗ) √t)")}),
    (ADAM, "p - 0.001", "p - 0.001 * 0.99**t", {"θ": ADAM_STEP.replace("0.001", "0.001 0.99ᵗ")}),
    (MOMENTUM, "p - 0.01 * b", "p - 0.01 * b / (1 + 0.1 * (t - 1))", {"θ": "θ - 0.01 b / (1 + 0.1 (t - 1))"}),
    (ADAM, "p - 0.001", "p - 0.001 * min(1, t / 10)", {"θ": ADAM_STEP.replace("0.001", "0.001 min(1, 0.1 t)")}),
    (ADAM, "g**2\n", "g**2\nx = x + g\n", {}),
    (ADAM, "g**2\n", "g**2\nx = m / (1 - 0.9**t)\n", {}),
    (ADAM, "g\nv", "(x + g)\nx = x + g\nv", {"m": "0.9 m + 0.1 x", "x": "x + g"}),
    (MOMENTUM, "p - 0.01 * b", "p - 0.01 * b - 0.01 * b**2 / 100", {"θ": "θ - 0.01 b - 0.0001 b²"}),
    (ADAM, "(1 - 0.999) * g**2", "(1 - 0.999) * (g - m)**2", {"v": "0.999 v + 0.001 (g - m)²"}),
    (MOMENTUM, "0.9 * b + g", "0.81 * b + 1.9 * g", {"b": "0.81 b + 1.9 g"}),
    (MOMENTUM, "b + g", "b + np.clip(g, -1, 1)", {"b": "0.9 b + clip(g, ±1)"}),
    (MOMENTUM, "b + g\np = p - 0.01 * b", "b + 0.01 * g\np = p - b", {}),
    (MOMENTUM, "b + g\np = p - 0.01 * b", "b - 0.01 * g\np = p + b - 0.001 * p", {"θ": "θ - 0.01 b - 0.001 θ"}),
    (RMSPROP, "np.sqrt(v) + 1e-8", "v + 1e-6", {"b": "0.9 b + g / (v + 1e-06)"}),
    (RMSPROP, "p - 0.01 * b", "p - 0.01 * (b + g)", {"θ": "θ - 0.01 b - 0.01 g"}),
    (ADADELTA, "0.1 * u**2", "0.1 * np.abs(u)", {"s": "0.9 s + 0.1 |u|"}),
    (ADADELTA, "s + 1e-6", "s + 1e-4", {"θ": "θ - g √(s_old + 0.0001) / √(v + 1e-06)"}),
    (ADADELTA, "np.sqrt(v + 1e-6)", "(np.sqrt(v) + 1e-6)", {"θ": "θ - g √(s_old + 1e-06) / (√v + 1e-06)"}),
    (ADADELTA, "np.sqrt(s + 1e-6)", "(np.sqrt(s) + 1e-6)", {"θ": "θ - g (√s_old + 1e-06) / √(v + 1e-06)"}),
    (MOMENTUM, "b + g", "b + g + 0.01 * np.sign(p)", {"b": "0.9 b + g + 0.01 sign(θ)"}),
    (LION, "0.01 * g", "0.01 * np.sign(c)", {"m": "0.99 m + 0.01 sign(0.9 m_old + 0.1 g)"}),
    (LION, "0.1 * g\n", "g\n", {"θ": "θ - 0.001 sign(0.9 m_old + 1 g) - 1e-06 θ"}),
    (AMSGRAD, "(w, v)", "(w, v / (1 - 0.999**t))", {"v_max": "max(v_max, v / (1 - 0.999ᵗ))"}),
    (AMSGRAD, "np.maximum(w, v)", "np.maximum(0.9999 * w, v)", {"v_max": "max(0.9999 v_max, v)"}),
    (ADAGRAD, "v + g**2", "np.sqrt(v + g**2)", {"v": "√(v + g²)"}),
]  # fmt: skip


@pytest.mark.parametrize(("program", "old", "new", "truth"), MISTAKES)
def test_the_equation_with_the_mistake_is_read(program, old, new, truth):
    assert program.count(old) == 1
    lines = lines_of(program.replace(old, new), reference_of(program))
    assert {line.name: line.candidate for line in lines if line.differs} == truth


def test_several_mistakes_are_read_each_alone():
    text = ADAM.replace("(1 - 0.9) * g", "1 - 0.9 * g").replace("g**2", "np.abs(g)")
    text = text.replace("+ 1e-8)", "+ 1e-8) - 1e-5 * m")
    lines = lines_of(text, reference_of(ADAM))
    assert [line.candidate for line in lines] == ["0.9 m - 0.9 g + 1", "0.999 v + 0.001 |g|", f"{ADAM_STEP} - 1e-05 m"]
    assert all(line.differs for line in lines)


def test_the_report_names_the_equation_that_differs():
    text = ADAM.replace("(1 - 0.9) * g", "0.1 * g + 0.01 * np.sign(g)")
    report = optcheck.compare(Program(text), optax.adam(1e-3), max_fits=400)
    assert [(cause.id, cause.candidate, cause.reference) for cause in report.causes] == [
        ("equation", "m ← 0.9 m + 0.1 g + 0.01 sign(g)", "m ← 0.9 m + 0.1 g")
    ]
    assert report.exit_code == 1
    assert report.allowed(["equation"])
    assert not report.allowed(["eps-inside"])
    assert report.fixes == ("in the candidate, use m ← 0.9 m + 0.1 g",)
    assert "    v ← 0.999 v + 0.001 g²" in str(report)
    assert json.loads(report.to_json())["causes"][0][0]["id"] == "equation"


def test_the_report_shows_what_could_be_read_if_the_cause_is_unknown():
    text = ADAM.replace("(1 - 0.9) * g", "0.1 * g + 0.01 * np.sign(g)").replace("p - 0.001", "p - 0.001 * np.cos(g)")
    report = optcheck.compare(Program(text), optax.adam(1e-3), max_fits=50)
    assert report.causes == ()
    assert report.exit_code == 2
    assert [(line.name, line.candidate, line.differs) for line in report.diagnosis.lines] == [
        ("m", "0.9 m + 0.1 g + 0.01 sign(g)", True),
        ("v", "0.999 v + 0.001 g²", False),
    ]
    assert "the others could not be read" in str(report)


def test_identify_prints_the_equations_of_an_unknown_rule():
    text = optcheck.identify(Program(ADAM.replace("(1 - 0.9) * g", "0.1 * g + 0.01 * np.sign(g)")), max_fits=20)
    assert text.startswith("unknown: none of the ")
    assert text.splitlines()[1:] == [
        "x ← 0.9 x + 0.1 g + 0.01 sign(g)",
        "y ← 0.999 y + 0.001 g²",
        ADAM_STEP.replace("θ -", "θ ← θ -").replace(" m /", " x /").replace("√v", "√y"),
    ]


@st.composite
def coefficients(draw):
    """A formula in t and its values, with the factors that corrections and schedules have."""
    t = np.arange(1, 61)
    number = draw(st.sampled_from([1e-3, -0.01, 0.1, 1.0, 3e-4]))
    b1, b2 = 0.9, 0.999
    shape, text = draw(
        st.sampled_from(
            [
                (1.0 + 0 * t, ""),
                (np.sqrt(1 - b2**t) / (1 - b1**t), "√(1 - 0.999ᵗ) / (1 - 0.9ᵗ)"),
                (1 / (1 - b1 ** (t + 1)), "/ (1 - 0.9ᵗ⁺¹)"),
                (t**-0.5, "/ √t"),
                (1 / (1 + 0.25 * (t - 1)), "/ (1 + 0.25 (t - 1))"),
                (0.95**t, "0.95ᵗ"),
                (np.minimum(1, t / 8), "min(1, 0.125 t)"),
            ]
        )
    )
    known = draw(st.integers(0, 3))  # steps at which the coefficient is not determined
    return np.where(t <= known, np.nan, number * shape), number, text


@hypothesis.given(coefficients())
def test_the_formula_of_coefficients_is_found(case):
    values, number, text = case
    sign, size = ("-" if number < 0 else ""), f"{abs(number):g}"
    expected = f"{size} {text}".strip()
    if size == "1" and text and not text.startswith("/"):
        expected = text
    assert str(factor_of(values, (0.9, 0.999))) == sign + expected


def test_coefficients_without_a_formula_are_listed():
    values = np.random.default_rng(0).uniform(1, 2, 60)
    assert str(factor_of(values, (0.9,))) == f"[{', '.join(f'{value:.4g}' for value in values[:5])}, …]"
    steps = np.where(np.arange(60) < 30, -0.1, -0.05)
    assert str(factor_of(steps, (0.9,))) == "-[0.1, 0.05 from t = 31]"


def test_a_reference_without_a_known_formula_is_read():
    decayed = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(lambda t: 0.1 / (1 + 0.01 * t), momentum=0.9))
    text = "b = 0.9 * b + g + 0.0005 * p\np = p - 0.1 * 0.99 ** (t - 1) * b"
    adapters = (build(optimizer, None, None, None, None) for optimizer in (Program(text), decayed))
    with jax.numpy_dtype_promotion("standard"):
        lines = read_difference(*adapters, SCRIPTS, ("norm/scale",), Deadline(None))
    assert [(line.name, line.candidate, line.reference) for line in lines if line.differs] == [
        ("θ", "θ - 0.10101 0.99ᵗ m", "θ - 0.1 m / (1 + 0.01 (t - 1))")
    ]


def test_coefficients_that_depend_on_the_gradients_are_not_an_equation():
    lines = lines_of(MOMENTUM.replace("b + g", "b + g * np.cos(np.linalg.norm(g))"), reference_of(MOMENTUM))
    assert {line.name: line.candidate for line in lines if line.differs} == {"b": "?"}


def test_gradients_clipped_by_the_norm_of_all_leaves_are_read():
    def update(grads, state, params):
        m, t = state
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
        m = jax.tree.map(lambda m, g: 0.90001 * m + g * jnp.minimum(1, 1 / norm), m, grads)
        return jax.tree.map(lambda m: -0.1 * m, m), (m, t + 1)

    candidate = (lambda params: (jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32)), update)
    reference = Formula(UpdateRule(clip="global norm", velocity="trace"), HyperParams(learning_rate=0.1))
    lines = read_difference(
        build(candidate, None, None, None, None), reference, SCRIPTS, ("norm/scale",), Deadline(None)
    )
    assert [(line.name, line.candidate, line.reference) for line in lines] == [
        ("b", "0.90001 b + (g min(1, 1/‖all g‖))", "0.9 b + (g min(1, 1/‖all g‖))"),
        ("θ", "θ - 0.1 b", "θ - 0.1 b"),
    ]


def hips_adam(grad, x0, steps=100, rate=1e-3, b1=0.9, b2=0.999):
    x, m, v = x0, np.zeros_like(x0), np.zeros_like(x0)
    for i in range(steps):
        g = grad(x, i)
        m = b1 * m + (1 - b1) * g + 0.01 * np.sign(g)
        v = b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1 ** (i + 1)), v / (1 - b2 ** (i + 1))
        x = x - rate * m_hat / (np.sqrt(v_hat) + 1e-8)
    return x


def sent_adam(x):
    m, v, t = np.zeros_like(x), np.zeros_like(x), 0
    while True:
        g = yield x
        t += 1
        m = 0.9 * m + 0.1 * g + 0.01 * np.sign(g)
        v = 0.999 * v + 0.001 * g**2
        x = x - 1e-3 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


@pytest.mark.parametrize("loop", [hips_adam, sent_adam])
def test_the_variables_of_a_loop_are_read(loop):
    adapter = build(loop, None, None, None, None)
    lines = read_difference(adapter, reference_of(ADAM), SCRIPTS, ("norm/scale",), Deadline(None))
    assert [(line.name, line.candidate) for line in lines if line.differs] == [("m", "0.9 m + 0.1 g + 0.01 sign(g)")]


def test_an_initial_value_is_read():
    text = "v = v + (t == 1) * 0.1" + ADAM.replace("(1 - 0.9) * g", "0.1 * g + 0.01 * np.sign(g)")
    assert [(line.name, line.candidate) for line in lines_of(text, reference_of(ADAM)) if line.differs] == [
        ("m", "0.9 m + 0.1 g + 0.01 sign(g)"),
        ("v₀", "0.1"),
    ]


def test_a_rule_of_matrices_is_read_beside_that_of_vectors():
    text = ADAM.replace("(1 - 0.9) * g", "0.1 * g + 0.01 * np.sign(g) * (g.ndim > 1)")
    assert [(line.name, line.candidate) for line in lines_of(text, reference_of(ADAM)) if line.differs] == [
        ("in dense/w: m", "0.9 m + 0.1 g + 0.01 sign(g)"),
    ]


UNREADABLE = [  # reference, old text, new text, names of the lines that are true on their own
    (ADAM, "0.001 * (m / (1 - 0.9**t))", "0.001 * np.tanh(m)", ["m", "v"]),
    (AMSGRAD, "(1 - 0.999) * g**2", "(1 - 0.999) * np.tanh(g)**2", ["m"]),  # v_max contains v
    (ADADELTA, "* g\n", "* np.tanh(g)\n", ["v"]),  # s contains the update
    (AMSGRAD, "np.maximum(w, v)\np = p - 0.001 *", "v\np = p - np.cos(g) *", ["m", "v"]),  # v_max is not stored
]


@pytest.mark.parametrize(("program", "old", "new", "names"), UNREADABLE)
def test_lines_under_an_unknown_cause_contain_only_what_was_read(program, old, new, names):
    assert program.count(old) == 1
    lines = certain_lines(lines_of(program.replace(old, new), reference_of(program)))
    assert [line.name for line in lines] == names
    assert all(line.candidate == line.reference for line in lines)


def test_an_update_that_one_script_shows_to_be_unreadable_is_not_read_again(monkeypatch):
    read, seen = difference.read_equations, []
    monkeypatch.setattr(
        difference,
        "read_equations",
        lambda leaf, *args, **options: seen.append(leaf.updates is not leaf.grads) or read(leaf, *args, **options),
    )
    lines_of(MOMENTUM.replace("p - 0.01 * b", "p - 0.01 * np.cos(b)"), reference_of(MOMENTUM))
    assert sum(seen) <= 4  # both optimizers on the first script, in two leaves
    assert len(seen) >= 8


def test_an_initial_value_of_one_leaf_is_not_that_of_all_leaves():
    text = "v = v + (t == 1) * 0.1 * (g.ndim == 1)" + ADAM.replace("(1 - 0.9) * g", "0.1 * g + 0.01 * np.sign(g)")
    assert [(line.name, line.candidate) for line in lines_of(text, reference_of(ADAM)) if line.differs] == [
        ("m", "0.9 m + 0.1 g + 0.01 sign(g)"),
        ("in norm/scale: v₀", "0.1"),
    ]


def test_an_epsilon_that_has_no_effect_is_mentioned():
    rule, hyper = reference_of(ADAM)
    text = ADAM.replace("1e-8", "1e-30").replace("(1 - 0.9) * g", "0.1 * g + 0.01 * np.sign(g)")
    *_, line = lines_of(text, Formula(rule, hyper._replace(eps=1e-30)))
    assert "ε" not in line.reference.replace("ε = 1e-30", "")
    assert line.remark.startswith("ε = 1e-30 of the reference is missing")


def example_leaf():
    """Arrays of a momentum program with weight decay."""
    rng = np.random.default_rng(0)
    g, p, t = rng.normal(size=(8, 5)), rng.normal(size=(8, 5)), np.arange(1, 9)[:, None]
    m, v = [np.zeros(5)], [np.zeros(5)]
    for row in g:
        m.append(0.9 * m[-1] + np.clip(row, -0.5, 0.5))
        v.append(np.maximum(0.99 * v[-1], np.abs(row)))
    m, v = np.stack(m), np.stack(v)
    updates = -0.01 * m[1:] / ((1 - 0.9**t) * np.sqrt(t)) / (np.sqrt(v[1:]) + 1e-8) - 1e-5 * p
    before, after = {"m": m[:-1], "v": v[:-1]}, {"m": m[1:], "v": v[1:]}
    return Leaf(g, p, updates, 1e-15 * np.abs(p), np.ones(8), (), before, after)


TEXTS = [  # name, right side, whether it is true
    ("m", "0.9 m + clip(g, ±0.5)", True),
    ("m", "0.9 m_old + clip(g, ±0.5)", True),
    ("m", "[0.9, 0.9, …] m + clip(g, ±0.5)", True),
    ("m", "[0.9, 0.9 from t = 3] m + clip(g, ±0.5)", True),
    ("m", "[0.9, 0.8 from t = 3] m + clip(g, ±0.5)", False),
    ("m", "[0.9, 0.8, …] m + clip(g, ±0.5)", False),
    ("m", "0.9 m + g", False),
    ("m", "0.9001 m + clip(g, ±0.5)", False),
    ("m", "clip(g, ±0.5) √(±0.5)² + 1", False),
    ("m", "0.9 m + 2 q", False),
    ("m", "0.9 m + (g", False),
    ("v", "max(0.99 v, |g|)", True),
    ("v", "√(max(0.99 v, |g|)² + 0.5 g² - 0.5 |g|²)", True),
    ("v", "max(0.99 v, g)", False),
    ("v", "v", False),
    ("θ", "θ - 0.01 m / ((1 - 0.9ᵗ) √t) / (√v + 1e-08) - 1e-05 θ", True),
    ("θ", "θ - 0.01 m / (1 - 0.9ᵗ) / (√v + 1e-08) - 1e-05 θ", False),
    ("θ", "θ - 0.01 m / ((1 - 0.9ᵗ) √t) / (√v + 1e-08)", False),
    ("θ", "θ - 0.01 m / ((1 - 0.9ᵗ) √t) / √v - 1e-05 θ", True),  # within rounding of this example
    ("θ", "0.01 m", False),
]


@pytest.mark.parametrize(("name", "text", "truth"), TEXTS)
def test_a_text_is_checked_against_the_arrays(name, text, truth):
    assert holds_as_text(text, name, example_leaf()) == truth


def test_the_arrays_of_a_text_are_known():
    assert names_in_text("θ - 1e-08 √(1 - 0.9ᵗ) m_old / (√(v_max - ḡ²) + min(1, 0.1 t)) sign(θ) + 0.1 u²") == {
        "m", "v_max", "ḡ", "u",
    }  # fmt: skip


def test_an_array_that_the_reference_does_not_need_is_left_out_of_the_fix():
    text = ADAM.replace("g\nv", "(x + g)\nx = x + g\nv")
    report = optcheck.compare(Program(text), optax.adam(1e-3), max_fits=400)
    assert ("x ← x + g", "x ← (not needed)") in [(cause.candidate, cause.reference) for cause in report.causes]
    assert "no x" in report.fixes[0]


INSIDE = RMSPROP.replace("0.1 * g**2", "0.1 * g**2 + 0.01 * np.abs(g)").replace("+ g / ", "+ 0.01 * g / ")


def test_an_array_that_is_a_multiple_of_the_printed_one_is_marked():
    text = INSIDE.replace("p - 0.01 * b", "p - b")
    b = next(line for line in lines_of(text, reference_of(RMSPROP)) if line.name == "b")
    assert (b.candidate, b.differs) == (b.reference, False)
    assert b.factor == 0.01
    torch = pytest.importorskip("torch")
    reference = functools.partial(torch.optim.RMSprop, lr=0.01, alpha=0.9, momentum=0.9)
    report = optcheck.compare(Program(text), reference, max_fits=100)
    assert "   (the same, up to a constant factor: the candidate stores 0.01 b)\n" in str(report)
    assert {line["factor"] for line in json.loads(report.to_json())["lines"]} == {1.0, 0.01}


def test_an_array_with_the_learning_rate_is_read_unscaled_if_the_update_multiplies_it_again():
    lines = {line.name: line for line in lines_of(INSIDE, reference_of(RMSPROP))}
    assert lines["b"].candidate.startswith("0.9 b + 0.01 g / ")
    assert lines["b"].factor == 1
    assert not lines["θ"].differs
