"""Two and three mistakes at once are named plainly: texts of NumPy optimizers with lines substituted."""

import functools
import os
import re
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnjax import optcheck
from nnjax.optcheck.rules.families import (
    choices_of,
    edits_between,
    equations,
    neighbours,
    sentence,
    update_array,
    with_usual_values,
)
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.rule_choices import CHOICES
from nnjax.optcheck.rules.update_rule import Formula, HyperParams, UpdateRule, is_linear
from nnjax.optcheck.search.budget import Budget
from nnjax.optcheck.search.causes import causes_of
from nnjax.optcheck.search.fitting import Target, fit_sample
from nnjax.optcheck.search.rule_search import search
from nnjax.optcheck.trace.gradient_script import STEPS, gradient_script, rule_inputs
from nnjax.optcheck.trace.tolerance import rounding_bound

INPUTS = rule_inputs(gradient_script())
ADAMW, ADAMAX = LIBRARY_RULES["torch.adamw"], LIBRARY_RULES["torch.adamax"]
TEXT = """
m = 0.9 * m + (1 - 0.9) * g
v = 0.999 * v + (1 - 0.999) * g**2
m_hat = m / (1 - 0.9**t)
v_hat = v / (1 - 0.999**t)
u = -0.001 * m_hat / (np.sqrt(v_hat) + 1e-8) - 0.001 * 0.01 * p
"""
NESTEROV = """
old = m
m = 0.9 * m - 0.001 * g
u = -0.9 * old + (1 + 0.9) * m
"""
MOMENTUM = """
m = 0.9 * m + g
u = -0.001 * m
"""
LOOK_AHEAD = """
m = 0.9 * m + g
u = -0.001 * (g + 0.9 * m)
"""
RMSPROP_MOMENTUM = """
v = 0.9 * v + 0.1 * g**2
m = 0.9 * m + 0.001 * g / np.sqrt(v + 1e-8)
u = -m
"""
NADAM_TEXT = """
m = 0.9 * m + (1 - 0.9) * g
v = 0.999 * v + (1 - 0.999) * g**2
m_hat = 0.9 * m / (1 - 0.9 ** (t + 1)) + (1 - 0.9) * g / (1 - 0.9**t)
u = -0.001 * m_hat / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
"""
ADADELTA = """
v = 0.9 * v + 0.1 * g**2
u = -np.sqrt(m + 1e-6) / np.sqrt(v + 1e-6) * g
m = 0.9 * m + 0.1 * u**2
"""
STEP = "-np.sqrt(m + 1e-6) / np.sqrt(v + 1e-6) * g"
LION = """
c = 0.9 * m + 0.1 * g
u = -0.001 * np.sign(c) - 0.001 * 0.001 * p
m = 0.99 * m + 0.01 * g
"""
ADAGRAD = """
v = v + g * g
u = -0.001 * g / (np.sqrt(v) + 1e-10)
"""
SGD = """
u = -0.001 * g
"""
M, M_HAT, DECAY = "0.9 * m + (1 - 0.9) * g", "m / (1 - 0.9**t)", " - 0.001 * 0.01 * p"
V, V_HAT = "0.999 * v + (1 - 0.999) * g**2", "v / (1 - 0.999**t)"
AFTER = " - 0.001 * 0.01 * (p - 0.001 * m_hat / (np.sqrt(v_hat) + 1e-8))"


def updates_of(text):
    """The updates of a program of one step with the state m, v and s."""
    state, rows = dict.fromkeys("mvs", np.zeros(INPUTS.grads.shape[1])), []
    code = compile(text, "step", "exec")
    for t, (g, p) in enumerate(zip(INPUTS.grads, INPUTS.params, strict=True), 1):
        names = {"np": np, "g": g, "p": p, "t": t, **state}
        with np.errstate(all="ignore"):
            exec(code, names)
        state = {name: names[name] for name in state}
        rows.append(names["u"])
    return np.stack(rows)


def found(updates, start=ADAMW):
    """The places and numbers that differ, for each explanation."""
    target = Target(updates, rounding_bound(updates, updates, INPUTS.params, "float64"), INPUTS)
    matches, rounded = search(target, start, Budget(600))
    assert not rounded
    return [
        {f"{edit.place}-{edit.new}" for edit in edits_between(start.rule, formula.rule)}
        | {name for name in HyperParams._fields if getattr(formula.hyper, name) != getattr(start.hyper, name)}
        for formula, *_ in matches
    ]


CASES = {  # old and new texts, and what differs
    "decaying sum": ([(M, "0.9 * m + g")], {"first-trace"}),
    "decaying sum, decay after the update": (
        [(M, "0.9 * m + g"), (DECAY, AFTER)], {"first-trace", "decay-after update"},
    ),
    "root of |g|": ([("g**2", "np.abs(g)")], {"second-absolute in root"}),
    "another rate": ([(M, "0.8 * m + 0.2 * g")], {"first-another rate", "b3"}),
    "correction with another rate": ([(M_HAT, "m / (1 - 0.8**t)")], {"first_correction-another rate", "b3"}),
    "power of 1 - b": ([(M_HAT, "m / (1 - 0.9)**t")], {"first_correction-power"}),
    "number and choice": (
        [("np.sqrt(v_hat) + 1e-8", "np.sqrt(v_hat + 1e-6)")], {"eps-inside", "eps"},
    ),
    "sum of |g|": ([("0.999 * v + (1 - 0.999) * g**2", "v + np.abs(g)")], {"second-absolute sum"}),
    "cube root": ([("np.sqrt", "np.cbrt")], {"root-cube"}),
    "multiplied by the root": ([("m_hat / (np", "m_hat * (np")], {"root-multiplied"}),
    "g m": ([("g**2", "g * m")], {"second-product"}),
    "g³": ([("g**2", "g**3")], {"second-cubed"}),
    "corrected twice": ([(M_HAT, f"{M_HAT} / (1 - 0.9**t)")], {"first_correction-squared"}),
    "β₁ᵗ": ([(M, M.replace("0.9", "0.9**t"))], {"first-with power"}),
    "β₂ᵗ": ([("0.999 * v + (1 - 0.999)", "0.999**t * v + (1 - 0.999**t)")], {"second-with power"}),
    "NAdam, one correction": (
        [(M_HAT, "0.9 * m / (1 - 0.9 ** (t + 1)) + (1 - 0.9) * g")], {"numerator-nadam", "gradient_correction-none"},
    ),
    "exponential decay of λ": (
        [("-0.001 *", "-0.001 * 0.98 ** (t - 1) *"), (DECAY, f"{DECAY} * 0.98 ** (t - 1)")],
        {"schedule-exponential", "rate_decay"},
    ),
    "ε added to the step": (
        [("-0.001 * m_hat / (np.sqrt(v_hat) + 1e-8)", "-(0.001 * m_hat / np.sqrt(v_hat) + 1e-8)")],
        {"eps-added to the step"},
    ),
    "decay twice": ([("m = ", "g = g + 0.01 * p\nm = ")], {"decay-l2 and decoupled"}),
    "NAdam without β₁": (
        [(M_HAT, "m / (1 - 0.9 ** (t + 1)) + (1 - 0.9) * g / (1 - 0.9**t)")], {"numerator-nadam", "ahead_factor-none"},
    ),
    "gradient instead of m_hat": ([(M_HAT, "g")], {"first-none"}),
    "corrected gradient": ([(M_HAT, "g / (1 - 0.9**t)")], {"first-gradient"}),
    "m without parentheses": ([(M_HAT, "m / 1 - 0.9**t")], {"first_correction-subtracted"}),
    "v without parentheses": ([("(1 - 0.999**t)", "1 - 0.999**t")], {"second_correction-subtracted"}),
    "2 g": ([("g**2", "g * 2")], {"second-twice the gradient"}),
    "ε twice": ([("np.sqrt(v_hat)", "np.sqrt(v_hat + 1e-8)")], {"eps-inside and outside"}),
    "minimum of v": ([("np.sqrt(v_hat)", "np.sqrt(np.minimum(0, v_hat))")], {"maximum-minimum"}),
    "λ halves every 7 steps": (
        [("-0.001 *", "-0.001 * 0.5 ** ((t - 1) // 7) *"), (DECAY, f"{DECAY} * 0.5 ** ((t - 1) // 7)")],
        {"schedule-stepwise", "rate_decay", "period"},
    ),
    "no decay, and a warm-up": (
        [(DECAY, ""), ("-0.001 *", "-0.001 * min(1, t / 10) *")], {"decay-none", "schedule-warm-up", "rate_decay"},
    ),
    "step is clipped": (
        [("-0.001 * m_hat / (np.sqrt(v_hat) + 1e-8)", "-0.001 * np.clip(m_hat / (np.sqrt(v_hat) + 1e-8), -0.8, 0.8)")],
        {"clip-step value", "clip"},
    ),
    "m without parentheses around 1 - β₁": ([(M, "0.9 * m + 1 - 0.9 * g")], {"first-precedence"}),
    "v without parentheses around 1 - β₂": ([(V, "0.999 * v + 1 - 0.999 * g**2")], {"second-precedence"}),
    "m without β₁": ([(M, "m + (1 - 0.9) * g")], {"first-without b1"}),
    "v without β₂": ([(V, "v + (1 - 0.999) * g**2")], {"second-without b2"}),
    "sums without β₁ and β₂": ([(M, "m + g"), (V, "v + g**2")], {"first-sum", "second-sum"}),
    "β₁ twice": ([(M, "0.9 * m + 0.9 * g")], {"first-both"}),
    "β₂ twice": ([(V, "0.999 * v + 0.999 * g**2")], {"second-both"}),
    "average times β₁": ([(M, "0.9 * (m + (1 - 0.9) * g)")], {"first-both average"}),
    "average times β₂": ([(V, "0.999 * (v + (1 - 0.999) * g**2)")], {"second-both average"}),
    "squared 1 - β₂": ([(V, "0.999 * v + ((1 - 0.999) * g) ** 2")], {"second-squared weight"}),
    "v with a minus": ([(V, "0.999 * v - (1 - 0.999) * g**2")], {"second-minus"}),
    "corrections twice": (
        [("-0.001 *", "-0.001 * (s := np.sqrt(1 - 0.999**t) / (1 - 0.9**t)) *"), (DECAY, f"{DECAY} * s")],
        {"schedule-corrected"},
    ),
    "m_hat + g": ([("m_hat / ", "(m_hat + g) / ")], {"numerator-plus gradient"}),
    "decay of m": ([(DECAY, " - 0.001 * 0.01 * m")], {"decay-of m"}),
    "gradients accumulate": ([("m = ", "s = g = s + g\nm = ")], {"accumulation-sum"}),
    "v_hat is the mean": ([(V_HAT, "v / t")], {"second_correction-count"}),
    "corrections of m compound": (
        [(M_HAT, "m / (s := (s if t > 1 else 1) * (1 - 0.9**t))")], {"first_correction-compounding"},
    ),
    "smallest v": (
        [(V_HAT, "(s := np.minimum(s if t > 1 else np.inf, v)) / (1 - 0.999**t)")], {"maximum-smallest"},
    ),
    "smallest v_hat": (
        [(V_HAT, f"(s := np.minimum(s if t > 1 else np.inf, {V_HAT}))")], {"maximum-smallest corrected"},
    ),
    "largest v_hat is corrected again": (
        [(V_HAT, f"(s := np.maximum(s, {V_HAT})) / (1 - 0.999**t)")], {"maximum-corrected twice"},
    ),
    "the denominator is stored": (
        [("(np.sqrt(v_hat) + 1e-8)", "(v := np.sqrt(v_hat) + 1e-8)")], {"second_storage-denominator"},
    ),
    "old m for v": ([("0.999 * v", "0.999 * m_old"), (M, f"(m_old := m) * 0 + {M}")], {"second-old m for v"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_mistakes_are_named_plainly(name):
    edits, truth = CASES[name]
    text = functools.reduce(lambda text, pair: text.replace(*pair), edits, TEXT)
    assert truth in found(updates_of(text))


@pytest.mark.parametrize(
    ("text", "reference", "pair", "truth"),
    [
        (NESTEROV, "nesterov", ("-0.9 * old", "0.9 * old"), {"nesterov-old velocity added"}),
        (NESTEROV, "nesterov", ("(1 + 0.9)", "(1 - 0.9)"), {"nesterov-one minus"}),
        (NESTEROV, "nesterov", ("-0.9 * old + (1 + 0.9) * m", "0.9 * m"), {"nesterov-without gradient"}),
        (ADADELTA, "optax.adadelta", ("u**2", "g**2"), {"rescaling_average-gradients"}),
        (ADADELTA, "optax.adadelta", ("0.9 * m + 0.1 *", "m +"), {"rescaling_average-sum"}),
        (ADADELTA, "optax.adadelta", ("0.9 * m + 0.1 *", "0.9 * m +"), {"rescaling_average-trace"}),
        (ADADELTA, "optax.adadelta", ("m = 0.9 * m + 0.1 * u**2", ""), {"rescaling_average-none"}),
        (ADADELTA, "optax.adadelta", ("np.sqrt(m + 1e-6)", "(m + 1e-6)"), {"rescaling-adadelta without root"}),
        (ADADELTA, "optax.adadelta", ("0.1 * u**2", "0.1 * u**2\nu = " + STEP), {"rescaling_lag-none"}),
        (SGD, "sgd", ("g", "g * min(1, t / 10)"), {"schedule-warm-up", "rate_decay"}),
        (SGD, "sgd", ("g", "g * 0.5 ** (t // 7)"), {"schedule-stepwise from 1", "rate_decay", "period"}),
        (
            ADAGRAD,
            "torch.adagrad",
            ("-0.001", "-0.001 / (1 + 0.02 * t)"),
            {"schedule-inverse time from 1", "rate_decay"},
        ),
        (ADADELTA, "optax.adadelta", ("u**2", "np.abs(u)"), {"rescaling_average-sizes"}),
        (ADADELTA, "optax.adadelta", ("np.sqrt(m + 1e-6)", "(np.sqrt(m) + 1e-6)"), {"rescaling_eps-outside"}),
        (ADADELTA, "optax.adadelta", ("u = -", "m = m + (t == 1)\nu = -"), {"rescaling_start"}),
        (SGD, "sgd", ("g", "g * 0.1 ** ((t - 1) // 4)"), {"schedule-stepwise", "rate_decay", "period"}),
        (SGD, "sgd", ("g", "np.clip(g, -0.05, 0.05)"), {"clip-value", "clip"}),
        (SGD, "sgd", ("g", "g * (1 - (t - 1) / 200)"), {"schedule-linear", "rate_decay"}),
        (SGD, "sgd", ("g", "g * (1 + np.cos(np.pi * (t - 1) / 150)) / 2"), {"schedule-cosine", "rate_decay"}),
        (ADAGRAD, "torch.adagrad", ("v + g * g", "np.maximum(v, g * g)"), {"second-largest square"}),
        (ADAGRAD, "torch.adagrad", (" + 1e-10", ""), {"eps-none with NaN"}),
        (LION, "optax.lion", ("0.9 * m + 0.1 * g", "0.9 * (0.99 * m + 0.01 * g) + 0.1 * g"), {"first-lion new m"}),
        (LION, "optax.lion", ("np.sign(c)", "np.tanh(c)"), {"sign-tanh"}),
        (LION, "optax.lion", ("0.9 * m + 0.1 * g", "0.9 * m + g"), {"first-lion full gradient"}),
        (MOMENTUM, "momentum", ("0.9 * m + g", "m + 0.9 * g"), {"velocity-sum"}),
        (LION, "optax.lion", ("(c) - 0.001 * 0.001 * p", "(c + 0.001 * p)"), {"decay-preconditioned"}),
        (LION, "optax.lion", ("0.9 * m + 0.1 * g", "0.9 * m + 1 - 0.9 * g"), {"first-lion precedence"}),
        (LION, "optax.lion", ("0.9 * m + 0.1 * g", "0.1 * m + 0.9 * g"), {"first-lion swapped"}),
        (LION, "optax.lion", ("0.99 * m + 0.01 * g", "0.99 * m + 1 - 0.99 * g"), {"first-lion stored precedence"}),
        (LION, "optax.lion", ("0.01 * g", "0.01 * np.sign(g)"), {"first-lion of signs"}),
        (LION, "optax.lion", ("0.01 * g", "0.01 * np.sign(c)"), {"first-lion of steps"}),
        (LION, "optax.lion", ("0.99 * m + 0.01 * g", "np.sign(c)"), {"first-lion stored step"}),
        (MOMENTUM, "momentum", ("0.9 * m + g", "0.9 * m + 1 - 0.9 * g"), {"velocity-precedence"}),
        (MOMENTUM, "momentum", ("* m\n", "* m / (1 - 0.9**t)\n"), {"nesterov-corrected"}),
        (LOOK_AHEAD, "nesterov", ("0.9 * m + g", "0.9 * m + (1 - 0.9) * g"), {"velocity-ema"}),
        (LOOK_AHEAD, "nesterov", ("0.9 * m + g", "0.9 * (m + g)"), {"velocity-both"}),
        (LOOK_AHEAD, "nesterov", ("(g + 0.9 * m)", "((1 - 0.9) * g + 0.9 * m)"), {"nesterov-weighted"}),
        (LOOK_AHEAD, "nesterov", ("(g + 0.9 * m)", "(m + 0.9 * g)"), {"nesterov-swapped"}),
        (LOOK_AHEAD, "nesterov", ("(g + 0.9 * m)", "(m := g + 0.9 * m)"), {"velocity_storage-look-ahead"}),
        (NADAM_TEXT, "optax.nadam", ("m + (1 - 0.9) * g\n", "m - (1 - 0.9) * g\n"), {"first-minus"}),
        (ADAGRAD, "torch.adagrad", ("(np.sqrt(v)", "(v := np.sqrt(v)"), {"second_storage-denominator"}),
        (
            RMSPROP_MOMENTUM,
            "jax.example_libraries.rmsprop_momentum",
            (" / np.sqrt(v + 1e-8)\nu = -m", "\nu = -m / np.sqrt(v + 1e-8)"),
            {"velocity-before division"},
        ),
        (
            SGD,
            "sgd",
            ("g", "g / (s := (s if t > 1 else 1) * (1 + 0.02 * (t - 1)))"),
            {"schedule-compounding", "rate_decay"},
        ),
        (
            SGD,
            "sgd",
            ("g", "g / (s := (s if t > 1 else 1) * (1 + 0.02 * t))"),
            {"schedule-compounding from 1", "rate_decay"},
        ),
    ],
)
def test_mistakes_in_other_rules_are_named(text, reference, pair, truth):
    start = LIBRARY_RULES[reference]
    start = start._replace(hyper=start.hyper._replace(learning_rate=1.0 if "delta" in reference else 1e-3))
    assert found(updates_of(text), start) == [set()]
    assert found(updates_of(text.replace(*pair)), start) == [truth]


NO_MOMENTS = {"first-none", "second-none"}


@pytest.mark.parametrize(
    ("name", "numbers", "reference", "rate", "truth"),
    [
        ("momentum", {}, "optax.adam", 0.01, {*NO_MOMENTS, "velocity-trace"}),
        ("momentum", {}, "torch.nadam", 0.001, {*NO_MOMENTS, "velocity-trace", "learning_rate"}),
        ("momentum", {"momentum": 0.95}, "optax.adam", 0.01, {*NO_MOMENTS, "velocity-trace", "momentum"}),
        ("torch.sgd_momentum", {}, "optax.adam", 0.01, {*NO_MOMENTS, "velocity-trace"}),
        ("keras.sgd_nesterov", {}, "optax.adam", 0.01, {*NO_MOMENTS, "velocity-trace", "nesterov-standard"}),
        ("sgd", {}, "optax.adamw", 0.01, {*NO_MOMENTS, "decay-none"}),
        ("optax.sign_sgd", {}, "optax.adam", 0.01, {*NO_MOMENTS, "sign-sign"}),
        ("paper.signum", {}, "momentum", 0.001, {"first-ema", "sign-sign", "velocity-none", "learning_rate"}),
        ("torch.rmsprop", {}, "optax.adam", 0.01, {"first-none", "second_correction-none", "b2"}),
    ],
)  # fmt: skip
def test_the_rule_of_a_library_is_not_explained_by_choices_that_compensate(name, numbers, reference, rate, truth):
    def formula(library, **changes):
        rule, hyper = LIBRARY_RULES[library]
        return Formula(rule, hyper._replace(**changes))

    updates = update_array(formula(name, learning_rate=0.01, **numbers), INPUTS)
    assert found(updates, formula(reference, learning_rate=rate)) == [truth]


def test_momentum_instead_of_adam_is_named_with_a_call():
    def momentum(params, grads, b):
        b = jax.tree.map(lambda b, g: 0.9 * b + g, b, grads)
        return jax.tree.map(lambda p, b: p - 0.01 * b, params, b), b

    report = optcheck.compare(momentum, optax.adam(0.01), init="zeros")
    (explanation,) = report.diagnosis.explanations
    assert explanation.library == "momentum"
    assert explanation.synonyms == ()
    assert equations(explanation.formula) == ["b ← μ b + g", "θ ← θ - λ b", "λ = 0.01, μ = 0.9"]
    assert "or use as the reference: optax.sgd(0.01, momentum=0.9)  (checked: matches)" in str(report)


def test_a_usual_choice_comes_before_a_rare_one_with_the_same_effect():
    def decayed(params, grads, state):
        return jax.tree.map(lambda p, g: p - 1e-3 * g - 1e-4 * p, params, grads), state

    explanations = optcheck.compare(decayed, "sgd").diagnosis.explanations
    assert [part.formula.rule.decay for part in explanations] == ["without rate", "l2"]


@pytest.mark.parametrize("optimizer", [optax.set_to_zero(), optax.sgd(0.0)])
def test_no_rule_is_named_if_all_updates_are_zero(optimizer):
    text = optcheck.identify(optimizer)
    assert text.startswith("unknown: all updates are zero")
    assert "the learning rate is 0" in text


def test_the_rule_of_the_candidate_alone_is_no_cause():
    def masked(params, grads, state):
        return jax.tree.map(lambda p, g: p - 1e-3 * jnp.where(g * p > 0, g, 0.0), params, grads), state

    text = str(optcheck.compare(optax.sgd(1e-3), masked, max_fits=3))
    assert "formula of the candidate (sgd); that of the reference is unknown" in text
    assert "cause: unknown, because the rule of the reference is unknown; the rule of the candidate is above" in text
    assert "rules tried" not in text


def test_mistakes_in_one_place_of_a_rule_add_up():
    """RAdam without steps below the threshold, and with ρ of the next step; Adadelta with a late sum of squares."""
    start = LIBRARY_RULES["optax.radam"]
    rule = start.rule._replace(rho="t + 1", below="no step")
    assert found(update_array(start._replace(rule=rule), INPUTS), start) == [{"rho-t + 1", "below-no step"}]
    start = LIBRARY_RULES["optax.adadelta"]
    rule = start.rule._replace(rescaling_average="sum", rescaling_lag="none")
    truth = {"rescaling_average-sum", "rescaling_lag-none"}
    assert found(update_array(start._replace(rule=rule), INPUTS), start) == [truth]


def test_a_counter_that_is_guarded_against_zero_is_named():
    start = LIBRARY_RULES["optax.adamw"]
    rule = start.rule._replace(decay="l2", counter="late")
    assert found(update_array(start._replace(rule=rule), INPUTS), start) == [{"decay-l2", "counter-late"}]


def test_the_deviation_from_the_corrected_moment_is_named():
    start = LIBRARY_RULES["optax.adabelief"]
    rule = start.rule._replace(second="belief corrected")
    assert found(update_array(start._replace(rule=rule), INPUTS), start) == [{"second-belief corrected"}]


@pytest.mark.parametrize("choice", ["inverse root time", "inverse root time from 1"])
def test_a_rate_that_decreases_with_a_root_is_named(choice):
    start = LIBRARY_RULES["torch.adagrad"]
    rule = start.rule._replace(schedule=choice)
    updates = update_array(Formula(rule, start.hyper._replace(rate_decay=0.01)), INPUTS)
    assert found(updates, start) == [{f"schedule-{choice}", "rate_decay"}]


def test_a_number_with_many_digits_is_told_as_a_choice():
    """Lion without the sign, of the new moment: β₁ (β₂ m + (1 - β₂) g) + (1 - β₁) g is also β₁ = 0.891."""
    start = LIBRARY_RULES["optax.lion"]
    rule = start.rule._replace(first="lion new m", sign="none")
    updates = update_array(start._replace(rule=rule), INPUTS)
    assert {"first-lion new m", "sign-none"} in found(updates, start)


def test_usual_choices_come_before_constants_that_compensate():
    """√(1 - β₂) is 0.1, and so is 1 - μ."""
    start = LIBRARY_RULES["torch.rmsprop"]
    start = Formula(start.rule._replace(velocity="trace"), start.hyper._replace(b2=0.99, momentum=0.9))
    rule = start.rule._replace(eps="inside", velocity="ema")
    assert {"eps-inside", "velocity-ema"} in found(update_array(Formula(rule, start.hyper), INPUTS), start)


@pytest.mark.skipif(os.environ.get("NNJAX_THOROUGH") != "1", reason="takes 6 s")
def test_an_initial_moment_and_two_other_mistakes():
    rule, hyper = LIBRARY_RULES["torch.rmsprop"]
    formula = Formula(rule._replace(root="none", direction="up"), hyper._replace(second_start=1.0))
    truth = {"root-none", "direction-up", "second_start"}
    assert found(update_array(formula, INPUTS), Formula(rule, hyper)) == [truth]


@pytest.mark.skipif(os.environ.get("NNJAX_THOROUGH") != "1", reason="takes 6 s")
def test_three_mistakes_at_once():
    rule = ADAMW.rule._replace(first="trace", decay="after update", second_correction="none")
    assert {"first-trace", "decay-after update", "second_correction-none"} in found(
        update_array(Formula(rule, ADAMW.hyper), INPUTS)
    )


def test_the_program_without_mistakes_is_adamw():
    target = update_array(ADAMW, INPUTS)
    assert np.allclose(updates_of(TEXT), target, rtol=1e-9, atol=0)


class Change:
    """SGD whose learning rate changes after the steps that the search compares."""

    def __init__(self, first, then):
        self.t, self.rates = 0, (first, then)

    def step(self, params, grads):
        self.t += 1
        rate = self.rates[self.t > STEPS]
        return {name: p - rate * grads[name] for name, p in params.items()}


def test_a_rule_that_fits_only_the_first_steps_is_not_named():
    report = optcheck.compare(Change(0.02, 0.01), optax.sgd(0.01), max_fits=20)
    assert report.diagnosis.refuted == 1
    assert report.diagnosis.explanations == ()
    assert [cause.candidate for cause in report.causes] == ["θ ← θ - [0.02, 0.01 from t = 25] g"]
    assert optcheck.identify(Change(0.02, 0.01), max_fits=20).startswith("unknown")


def test_a_match_of_the_first_steps_only_is_no_match():
    report = optcheck.compare(Change(0.01, 0.02), optax.sgd(0.01), max_fits=20)
    assert [cause.candidate for cause in report.causes] == ["θ ← θ - [0.01, 0.02 from t = 25] g"]
    assert report.passes[-1].name == "float64, 60 steps of other gradients"


@pytest.mark.parametrize(
    ("shared", "truth"),
    [
        (lambda g, grads: np.mean(g**2), "second_scope-leaf-mean"),
        (lambda g, grads: np.sum(g**2), "second_scope-leaf-norm"),
        (lambda g, grads: sum(np.sum(other**2) for other in grads.values()), "second_scope-global-norm"),
    ],
)
def test_one_second_moment_for_many_elements_is_named(shared, truth):
    class Adagrad:
        v: ClassVar[dict] = {}

        def step(self, params, grads):
            squares = {name: shared(g, grads) for name, g in grads.items()}
            self.v = {name: self.v.get(name, 0.0) + square for name, square in squares.items()}
            return {name: p - 0.001 * grads[name] / (np.sqrt(self.v[name]) + 1e-10) for name, p in params.items()}

    report = optcheck.compare(Adagrad, "torch.adagrad")
    assert [[cause.id for cause in part.causes] for part in report.diagnosis.explanations] == [[truth]]


ADABELIEF, RMSPROP, LAMB = (LIBRARY_RULES[name] for name in ("optax.adabelief", "torch.rmsprop", "optax.lamb"))


def test_mistakes_in_adabelief_and_lamb_are_named():
    for choice in ("belief absolute", "belief plus"):
        updates = update_array(ADABELIEF._replace(rule=ADABELIEF.rule._replace(second=choice)), INPUTS)
        assert found(updates, ADABELIEF) == [{f"second-{choice}"}]
    updates = update_array(LAMB._replace(rule=LAMB.rule._replace(trust="lamb inverted")), INPUTS)
    assert found(updates, LAMB) == [{"trust-lamb inverted"}]


def test_a_correction_with_its_own_rate_is_not_a_synonym():
    updates = update_array(RMSPROP._replace(rule=RMSPROP.rule._replace(second_correction="t")), INPUTS)
    assert found(updates, RMSPROP) == [{"second_correction-t"}]


def test_the_mean_of_decaying_squares_is_named():
    start = LIBRARY_RULES["torch.adagrad"]
    text = ADAGRAD.replace("v + g * g", "0.9 * v + 0.1 * g * g").replace("np.sqrt(v)", "np.sqrt(v / t)")
    assert found(updates_of(text), start) == [{"second-ema", "second_correction-count", "b2"}]


def test_an_initial_moment_and_another_number_are_named():
    updates = update_array(RMSPROP._replace(hyper=RMSPROP.hyper._replace(second_start=1.0, eps=1e-6)), INPUTS)
    assert found(updates, RMSPROP) == [{"second_start", "eps"}]


@pytest.mark.parametrize("factor", [1.0, 0.999, 1 / 3])
def test_an_unusual_small_number_is_fitted(factor):
    """v̂ = β₂ v / (1 - β₂ᵗ) is Dozat's NAdam, which rescales λ and ε by 1/√β₂; the factor β₂ is named instead."""
    numbers = {"learning_rate": 1e-3 / np.sqrt(factor), "eps": 1e-8 / np.sqrt(factor)}
    start = LIBRARY_RULES["optax.nadam"]
    updates = update_array(start._replace(hyper=start.hyper._replace(**numbers)), INPUTS)
    truth = {1.0: set(), start.hyper.b2: {"second-both average"}}
    assert found(updates, start) == [truth.get(factor, set(numbers))]


def test_several_differences_are_not_blamed_on_float32():
    def step(params, grads, state):
        new = {name: 0.9 * state[name] + 0.1 * g**2 for name, g in grads.items()}
        return {name: p - 0.01 * grads[name] / (np.sqrt(new[name]) + 2.3e-7) for name, p in params.items()}, new

    reference = optax.rmsprop(0.01, eps_in_sqrt=False)
    report = optcheck.compare(step, reference, init=functools.partial(jax.tree.map, np.ones_like), max_fits=100)
    assert "precision" not in {cause.id for cause in report.causes}


def test_rules_that_couple_elements_take_many_settings_at_once():
    rule = ADAMW.rule._replace(variance="mars", centre="rows", clip="leaf norm", second_scope="leaf mean", trust="lamb")
    rates = np.array([[0.1], [0.3]])
    together = update_array(Formula(rule, ADAMW.hyper._replace(gamma=rates)), INPUTS)
    for i, rate in enumerate(rates[:, 0]):
        alone = update_array(Formula(rule, ADAMW.hyper._replace(gamma=rate)), INPUTS)
        np.testing.assert_allclose(together[:, i], alone, rtol=1e-12)


NADAM = LIBRARY_RULES["optax.nadam"]


@pytest.mark.parametrize("counter", ["ahead", "stuck"])
def test_the_counter_of_nadam_is_named(counter):
    t_of = {"ahead": lambda t: t + 1, "stuck": lambda t: 1}[counter]
    text = f"t = {t_of(0)} + t * {t_of(1) - t_of(0)}\n{NADAM_TEXT}"
    assert {f"counter-{counter}"} in found(updates_of(text), NADAM)


def test_a_late_correction_of_v_alone_has_no_false_synonyms():
    rule = NADAM.rule._replace(second_correction="t + 1")
    assert found(update_array(NADAM._replace(rule=rule), INPUTS), NADAM) == [{"second_correction-t + 1"}]


RADAM = LIBRARY_RULES["optax.radam"]


@pytest.mark.parametrize(
    ("place", "choice"),
    [
        (place, choice)
        for place in ("rectification", "rho", "rectifier", "below")
        for choice in CHOICES[place]
        if choice != getattr(RADAM.rule, place)
    ],
)
def test_each_wrong_rectification_is_named(place, choice):
    updates = update_array(RADAM._replace(rule=RADAM.rule._replace(**{place: choice})), INPUTS)
    assert found(updates, RADAM) == [{f"{place}-{choice}"}]


TORCH_NADAM = LIBRARY_RULES["torch.nadam"]


@pytest.mark.parametrize(
    ("place", "choice"),
    [
        (place, choice)
        for place in ("ahead_factor", "ahead_correction", "gradient_weight", "gradient_correction", "momentum_schedule")
        for choice in CHOICES[place]
        if choice != getattr(TORCH_NADAM.rule, place)
    ],
)
def test_each_wrong_look_ahead_is_named_also_next_to_another_mistake(place, choice):
    rule = TORCH_NADAM.rule._replace(**{place: choice})
    assert found(update_array(TORCH_NADAM._replace(rule=rule), INPUTS), TORCH_NADAM) == [{f"{place}-{choice}"}]
    rule = rule._replace(first="with schedule")
    both = found(update_array(TORCH_NADAM._replace(rule=rule), INPUTS), TORCH_NADAM)
    assert both == [{f"{place}-{choice}", "first-with schedule"}]


@pytest.mark.parametrize(
    "choice", ["squared global norm", "global norm of sizes", "global 1-norm", "global sum of norms"]
)
def test_clipping_by_a_wrong_norm_is_named(choice):
    start = LIBRARY_RULES["momentum"]
    start = start._replace(rule=start.rule._replace(clip="global norm"))
    updates = update_array(start._replace(rule=start.rule._replace(clip=choice)), INPUTS)
    assert found(updates, start) == [{f"clip-{choice}"}]


def test_numbers_of_nadam_and_adabelief_are_named():
    for name, number, value in (("torch.nadam", "momentum_decay", 1.0), ("optax.adabelief", "eps_state", 1e-8)):
        start = LIBRARY_RULES[name]
        updates = update_array(start._replace(hyper=start.hyper._replace(**{number: value})), INPUTS)
        assert found(updates, start) == [{number}], name


@pytest.mark.parametrize(
    ("divisor", "truth"),
    [
        (lambda norm: max(norm, 1.0), ["clip-global-norm", "clip"]),
        (lambda norm: norm + 1e-8, ["clip-unit-global-norm", "eps"]),
        (lambda norm: norm + 1e-6, ["clip-unit-global-norm", "eps"]),
    ],
)
def test_clipped_gradients_differ_from_normalised_ones(divisor, truth):
    def step(params, grads, state):
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        return {name: p - 0.001 * grads[name] / divisor(norm) for name, p in params.items()}, state

    report = optcheck.compare(step, "sgd")
    assert [[cause.id for cause in part.causes] for part in report.diagnosis.explanations] == [truth]


def test_the_fix_drops_the_clipping_and_keeps_the_decay():
    def step(params, grads, state):
        return {name: p - 0.1 * (np.clip(grads[name], -1, 1) + 0.01 * p) for name, p in params.items()}, state

    report = optcheck.compare(step, optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1)))
    assert "fix: in the candidate, use no g ← clip(g, ±c)" in str(report)


def test_a_schedule_of_the_reference_is_not_denied():
    plain = LIBRARY_RULES["torch.sgd"]
    decaying = plain._replace(rule=plain.rule._replace(schedule="inverse time"))
    exponential = plain._replace(rule=plain.rule._replace(schedule="exponential"))
    own, other = (
        next(c for c in causes_of(start, exponential) if c.place == "schedule") for start in (plain, decaying)
    )
    assert own.reference == "the learning rate has no schedule in the optimizer"
    assert other.reference == "the learning rate is divided by 1 + κ (t - 1)"


def norm_of(tree):
    return jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(tree)))


def with_gradients(optimizer, change):
    return optimizer.init, lambda grads, state, params=None: optimizer.update(change(grads), state, params)


@pytest.mark.parametrize("scope", ["global", "leaf"])
def test_gradients_that_are_always_normalised_are_not_called_clipped(scope):
    def scaled(grads):
        norms = jax.tree.map(lambda g: norm_of(grads if scope == "global" else g), grads)
        return jax.tree.map(lambda g, norm: g / norm, grads, norms)

    adam, clipping = optax.adam(1e-3), optax.clip_by_global_norm(1.0)
    assert ids(with_gradients(adam, scaled), adam) == {f"clip-scaled-{scope}-norm", "clip"}
    if scope == "global":
        report = optcheck.compare(with_gradients(adam, scaled), optax.chain(clipping, adam))
        assert [cause.id for cause in report.causes] == ["clip-scaled-global-norm"]
        assert "c g / ‖all g‖" in str(report)


def ids(candidate, reference):
    return {cause.id for cause in optcheck.compare(candidate, reference).causes}


@pytest.mark.parametrize(
    ("reference", "inside", "outside", "choice"),
    [
        ("torch.adamax", 1e-8, 0.0, "second-largest-ever-with-eps"),
        ("keras.adamax", 0.0, 1e-7, "second-largest-ever"),
    ],
)
def test_a_maximum_without_decay_is_not_called_a_maximum_of_corrected_moments(reference, inside, outside, choice):
    def adamax(params, grads, state):
        m, v, t = state or (*({k: np.zeros_like(p) for k, p in params.items()},) * 2, 0)
        m = {k: 0.9 * m[k] + 0.1 * g for k, g in grads.items()}
        v = {k: np.maximum(v[k], np.abs(g) + inside) for k, g in grads.items()}
        params = {k: p - 0.001 * m[k] / (1 - 0.9 ** (t + 1)) / (v[k] + outside) for k, p in params.items()}
        return params, (m, v, t + 1)

    causes = optcheck.compare(adamax, reference).causes
    assert [cause.candidate for cause in causes] == ["β₂ is 1"] or [cause.id for cause in causes] == [choice]


@pytest.mark.parametrize("clip", ["global norm", "scaled global norm", "unit global norm"])
def test_rules_that_clip_by_the_global_norm_are_fitted_to_a_sample(clip):
    formula = ADAMW._replace(rule=ADAMW.rule._replace(clip=clip))
    updates = update_array(formula, INPUTS)
    target = Target(updates, rounding_bound(updates, updates, INPUTS.params, "float64"), INPUTS)
    small = fit_sample(formula.rule, target)
    assert small.updates.shape[1] < updates.shape[1] / 10
    np.testing.assert_allclose(update_array(formula, small.inputs), small.updates, rtol=1e-12)
    assert fit_sample(formula.rule, small) is small
    by_step = formula.rule._replace(clip="step global norm")
    assert fit_sample(by_step, target) is target


def test_causes_of_a_rule_without_clipping_are_named():
    adan, hyper = LIBRARY_RULES["optax.adan"]
    changed = Formula(adan, hyper._replace(b3=0.5))
    assert [cause.id for cause in causes_of(Formula(adan, hyper), changed)] == ["b3"]


NAMED = {(type(rule), rule): Formula(rule, hyper) for rule, hyper in LIBRARY_RULES.values()}.values()
DECAY_LINES = ("decoupled", "without rate", "after update", "wrong sign")  # terms after the step


@pytest.mark.parametrize("decay", DECAY_LINES)
def test_weight_decay_is_written_in_the_equation_of_the_parameters(decay):
    for rule, hyper in NAMED:
        if decay not in choices_of(rule)["decay"] or "lamb" in getattr(rule, "trust", ""):
            continue
        formula = with_usual_values(rule._replace(decay=decay), hyper)
        *lines, _ = equations(formula)
        (line,) = [line for line in lines if re.search(r"[+-] .*(?<!\w)w [θy]", line)]
        assert line.startswith(("θ ← ", "z ← "))
        assert not re.search("←| if ", line.partition(" ← ")[2])


SYMBOL = re.compile(r"(?<![A-Za-z_])[a-zθ](?:_(?:max|min|old|t))?(?![A-Za-z_])")
ALWAYS = {"g", "θ", "m_old", "v_old", "b_old", "g_old", "t", "w", "c", "n", "i"}


def undefined(lines):
    """Return the symbols of equations that no earlier equation defines; m, v, b and s are stored."""
    known, missing = ALWAYS | {"m", "v", "b", "s"}, set()
    for line in lines:
        name, _, right = re.sub(r"\(first step.*|   \(.*", "", line).replace(" = ", " ← ", 1).partition(" ← ")
        missing |= set(SYMBOL.findall(right)) - known - {name}
        known.add(name)
    return missing


def moment_rules():
    for rule, hyper in NAMED:
        if type(rule) is UpdateRule:
            yield Formula(rule, hyper)
            yield from (Formula(neighbour.rule, hyper) for neighbour in neighbours(rule))


def test_symbols_of_the_step_are_defined():
    assert undefined(["θ ← θ - λ √(s + ε) · g, s ← s + d²"]) == {"d"}
    for rule, hyper in moment_rules():
        *lines, _ = equations(with_usual_values(rule, hyper))
        assert undefined([line for line in lines if not line.startswith("t = ")]) == set(), rule


def test_adadelta_of_squares_with_the_current_step_defines_the_step_twice():
    rule, hyper = LIBRARY_RULES["optax.adadelta"]
    assert equations(Formula(rule._replace(rescaling_lag="none", decay="without rate"), hyper))[1:-1] == [
        "d = √(s + ε) · g / √(v + ε)",
        "s ← β₂ s + (1 - β₂) d²",
        "d ← √(s + ε) · g / √(v + ε)",
        "θ ← θ - λ d - w θ",
    ]


def test_the_condition_of_radam_does_not_contain_weight_decay():
    rule, hyper = LIBRARY_RULES["torch.radam"]
    *_, step, end, _, _ = equations(Formula(rule._replace(decay="decoupled"), hyper))
    assert step.endswith(" if ρ_t > 5, else m / (1 - β₁ᵗ)")
    assert end == "θ ← θ - λ d - λ w θ"


def test_amsgrad_shows_which_moment_is_compared():
    assert "v_max ← max(v_max, v / (1 - β₂ᵗ))" in equations(Formula(*LIBRARY_RULES["optax.amsgrad"]))


def test_rules_without_a_root_are_not_described_with_one():
    rules = [rule for rule, _ in moment_rules() if is_linear(rule) and rule.root != "none"]
    assert len(rules) > 100
    for rule in rules:
        text = sentence(rule, "eps", rule.eps)
        assert "root" not in text, rule
        assert "√" not in text, rule


def test_epsilon_of_adamax_is_in_the_denominator():
    (cause,) = causes_of(ADAMAX, ADAMAX._replace(rule=ADAMAX.rule._replace(eps="outside")))
    assert cause.candidate == "ε is added to the denominator"
    assert cause.reference == "no ε is added to the denominator, or one that is too small to be observed"


def test_the_impact_of_rare_sign_flips_is_their_share():
    def lion(params, grads, m):
        m = m or {k: np.zeros_like(p) for k, p in params.items()}
        params = {k: p - 0.001 * np.sign(0.9 * m[k] + grads[k]) for k, p in params.items()}
        return params, {k: 0.99 * m[k] + 0.01 * g for k, g in grads.items()}

    impact = optcheck.compare(lion, optax.lion(1e-3, weight_decay=0.0)).diagnosis.impact
    share = r"\d+ % of the updates differ \(0 % at the first step, \d+ % at the last\)"
    assert re.search(share + ", by 200 % ", impact)


def test_the_footer_does_not_list_what_the_cause_shows():
    report = optcheck.compare(optax.adamw(1e-3, weight_decay=0.01), optax.adam(1e-3))
    assert "weight decay is 0.01" in [cause.candidate for cause in report.causes]
    assert not [text for text in report.not_observed if "weight decay" in text]


def test_the_footer_does_not_list_what_the_updates_of_the_candidate_show():
    def lion(params, grads, m):
        m = m or {k: np.zeros_like(p) for k, p in params.items()}
        steps = {k: np.sign(0.9 * m[k] + g) + 0.05 * params[k] for k, g in grads.items()}
        params = {k: p - 2e-4 * steps[k] for k, p in params.items()}
        return params, {k: 0.98 * m[k] + 0.02 * g for k, g in grads.items()}

    report = optcheck.compare(lion, optax.lion(2e-4, b2=0.98, weight_decay=0.05))
    assert "rounded to bfloat16" in report.diagnosis.explanations[0].runner_up
    assert not [text for text in report.not_observed if "bfloat16" in text]


@pytest.mark.parametrize(
    ("optimizer", "listed"),
    [
        (optax.adam(1e-3), True),
        (optax.adamw(1e-3, weight_decay=0.0), True),
        (optax.adam(optax.linear_schedule(1e-4, 1e-3, 10)), True),
        (optax.adamw(1e-3, weight_decay=0.1), False),
        (optax.adamw(optax.linear_schedule(1e-4, 1e-3, 10), weight_decay=0.1), False),
    ],
)
def test_matches_list_weight_decay_if_the_reference_has_none(optimizer, listed):
    report = optcheck.compare(optimizer, optimizer)
    assert report.matches
    assert any("weight decay" in text for text in report.not_observed) == listed


def test_a_counter_that_stays_is_described_for_any_first_value():
    text = sentence(ADAMW.rule, "counter", "stuck")
    assert "does not increase" in text
    assert " 1" not in text


def test_a_missing_schedule_is_called_missing():
    def adagrad(params, grads, state):
        state = jax.tree.map(lambda v, g: v + g**2, state, grads)
        return jax.tree.map(lambda p, g, v: p - 0.1 * g / (np.sqrt(v) + 1e-7), params, grads, state), state

    torch = pytest.importorskip("torch")
    reference = functools.partial(torch.optim.Adagrad, lr=0.1, lr_decay=0.02, eps=1e-7)
    report = optcheck.compare(adagrad, reference, init=lambda p: jax.tree.map(lambda x: 0 * x + 0.1, p))
    assert {cause.id for cause in report.causes} == {"schedule-current", "second_start"}
    assert "the learning rate has no schedule in the optimizer; the reference" in str(report)
    assert "or cause" not in str(report)
