"""Two and three mistakes at once are named plainly: texts of NumPy optimizers with lines substituted."""

import functools
import os

import numpy as np
import pytest

from nnjax.optcheck.rules.families import edits_between, update_array
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.update_rule import Formula, HyperParams
from nnjax.optcheck.search.fitting import Target
from nnjax.optcheck.search.rule_search import Budget, search
from nnjax.optcheck.trace.gradient_script import gradient_script, rule_inputs
from nnjax.optcheck.trace.tolerance import rounding_bound

INPUTS = rule_inputs(gradient_script())
ADAMW = LIBRARY_RULES["torch.adamw"]
TEXT = """
m = 0.9 * m + (1 - 0.9) * g
v = 0.999 * v + (1 - 0.999) * g**2
m_hat = m / (1 - 0.9**t)
v_hat = v / (1 - 0.999**t)
u = -0.001 * m_hat / (np.sqrt(v_hat) + 1e-8) - 0.001 * 0.01 * p
"""
M, M_HAT, DECAY = "0.9 * m + (1 - 0.9) * g", "m / (1 - 0.9**t)", " - 0.001 * 0.01 * p"
AFTER = " - 0.001 * 0.01 * (p - 0.001 * m_hat / (np.sqrt(v_hat) + 1e-8))"


def updates_of(text):
    """The updates of a program of one step."""
    m, v, rows = np.zeros(INPUTS.grads.shape[1]), np.zeros(INPUTS.grads.shape[1]), []
    code = compile(text, "step", "exec")
    for t, (g, p) in enumerate(zip(INPUTS.grads, INPUTS.params, strict=True), 1):
        names = {"np": np, "m": m, "v": v, "g": g, "p": p, "t": t}
        with np.errstate(all="ignore"):
            exec(code, names)
        m, v = names["m"], names["v"]
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
    "old m for v": ([("0.999 * v", "0.999 * m_old"), (M, f"(m_old := m) * 0 + {M}")], {"second-old m for v"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_mistakes_are_named_plainly(name):
    edits, truth = CASES[name]
    text = functools.reduce(lambda text, pair: text.replace(*pair), edits, TEXT)
    assert truth in found(updates_of(text))


@pytest.mark.skipif(os.environ.get("NNJAX_THOROUGH") != "1", reason="takes 6 s")
def test_three_mistakes_at_once():
    rule = ADAMW.rule._replace(first="trace", decay="after update", second_correction="none")
    assert {"first-trace", "decay-after update", "second_correction-none"} in found(
        update_array(Formula(rule, ADAMW.hyper), INPUTS)
    )


def test_the_program_without_mistakes_is_adamw():
    target = update_array(ADAMW, INPUTS)
    assert np.allclose(updates_of(TEXT), target, rtol=1e-9, atol=0)
