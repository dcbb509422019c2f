"""`identify` names every rule that is one choice from a library's rule."""

import os

import pytest

from nnjax.optcheck.rules.families import hyper_names, is_moments, neighbours, update_array, with_usual_values
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.update_rule import Formula
from nnjax.optcheck.search.budget import Budget
from nnjax.optcheck.search.fitting import Target, reproduces
from nnjax.optcheck.search.rule_search import identify_formula
from nnjax.optcheck.trace.gradient_script import gradient_script, rule_inputs
from nnjax.optcheck.trace.tolerance import rounding_bound

THOROUGH = os.environ.get("NNJAX_THOROUGH") == "1"
INPUTS = rule_inputs(gradient_script())
UNUSUAL = {  # numbers that no library has as a default
    "learning_rate": 3.7e-3, "momentum": 0.83, "dampening": 0.35, "weight_decay": 3.1e-3, "clip": 0.37, "trust": 0.02,
}  # fmt: skip


def target_of(formula):
    updates = update_array(formula, INPUTS)
    return Target(updates, rounding_bound(updates, updates, INPUTS.params, "float64"), INPUTS)


def choices():
    """All formulas that are one choice from a library's rule, each with that rule's name."""
    seen, rows = set(), []
    for name, start in LIBRARY_RULES.items():
        for edits, rule in neighbours(start.rule):
            formula = with_usual_values(rule, start.hyper)
            if formula not in seen:
                seen.add(formula)
                rows.append((name, edits, formula))
    return rows


def misses(rows):
    """The rows whose formula `identify` does not find."""
    wrong = []
    for name, edits, formula in rows:
        target = target_of(formula)
        found = identify_formula(target, None, Budget(1200))
        if not (found and reproduces(found[0].formula, target)):
            wrong.append((name, [(edit.place, edit.new) for edit in edits]))
    return wrong


CHOICES = choices()
SHARES = 40  # of the choices, a test each


@pytest.mark.parametrize("share", range(SHARES if THOROUGH else 4))
def test_every_choice_next_to_a_library_rule_is_identified(share):
    rows = CHOICES[share::SHARES]
    assert misses(rows if THOROUGH else rows[:: len(rows) // 8]) == []


def with_unusual_numbers():
    """One formula for each kind of choice that needs a further number: the number and the learning rate are unusual.

    Not for rules named after papers: with unusual numbers, some of their choices stay unknown.
    """
    rows, seen = [], set()
    for name, edits, (rule, hyper) in CHOICES:
        new = (set(hyper_names(rule)) - set(hyper_names(LIBRARY_RULES[name].rule))) & set(UNUSUAL)
        place = (edits[0].place, edits[0].new)
        if new and is_moments(rule) and place not in seen:
            seen.add(place)
            changed = {field: UNUSUAL[field] for field in (*new, "learning_rate") if field in UNUSUAL}
            rows.append((name, edits, with_usual_values(rule, hyper._replace(**changed))))
    return rows


NUMBERS = with_unusual_numbers()


@pytest.mark.parametrize("row", NUMBERS if THOROUGH else NUMBERS[::8], ids=lambda row: row[0])
def test_choices_with_unusual_numbers_are_identified(row):
    assert misses([row]) == []


def test_every_place_is_in_the_table():
    places = {edit.place for _, edits, _ in CHOICES for edit in edits}
    assert places >= {"first", "second", "eps", "decay", "clip", "velocity", "counter", "hessian", "iterations"}
    assert len(CHOICES) > 3000


def test_a_library_rule_with_other_numbers_is_plainer_than_one_with_a_different_choice():
    rule, hyper = LIBRARY_RULES["optax.adamw"]  # w = 1e-4: without the learning rate, it would decay as much
    formula = identify_formula(target_of(Formula(rule, hyper._replace(weight_decay=0.1))), None, Budget(10))[0].formula
    assert (formula.rule.decay, formula.hyper.weight_decay) == ("decoupled", 0.1)
