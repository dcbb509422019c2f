"""Return the choices, neighbours, equations and updates of a rule from any family."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from nnjax.optcheck.rules import equations as equations_of_moments
from nnjax.optcheck.rules import neighbours as neighbours_of_moments
from nnjax.optcheck.rules import rule_updates
from nnjax.optcheck.rules.named.adafactor import ADAFACTOR, AdafactorRule
from nnjax.optcheck.rules.named.adamp import ADAMP, AdamPRule
from nnjax.optcheck.rules.named.adan import ADAN, AdanRule
from nnjax.optcheck.rules.named.adopt import ADOPT, AdoptRule
from nnjax.optcheck.rules.named.family import Family, family_updates
from nnjax.optcheck.rules.named.muon import MUON, MuonRule
from nnjax.optcheck.rules.named.prodigy import PRODIGY, ProdigyRule
from nnjax.optcheck.rules.named.schedule_free import SCHEDULE_FREE, ScheduleFreeRule
from nnjax.optcheck.rules.named.sophia import SOPHIA, SophiaRule
from nnjax.optcheck.rules.neighbours import Edit, Neighbour
from nnjax.optcheck.rules.rule_choices import CHOICES, USUAL_VALUES, WITHOUT_ROOT
from nnjax.optcheck.rules.update_rule import LION, Formula, HyperParams, Inputs, UpdateRule, is_linear

FAMILIES: dict[type, Family] = {
    AdafactorRule: ADAFACTOR,
    AdamPRule: ADAMP,
    AdanRule: ADAN,
    AdoptRule: ADOPT,
    MuonRule: MUON,
    ProdigyRule: PRODIGY,
    ScheduleFreeRule: SCHEDULE_FREE,
    SophiaRule: SOPHIA,
}
RULE = "rule"  # `Edit.place` of an edit that changes the family
MOMENTS = "moments"  # the family of UpdateRule
CLIPS_BY_NORM = ("global norm", "squared global norm", "scaled global norm", "unit global norm")


def family_name(rule: Any) -> str:
    """Return the name of the family, such as "Adan", or "moments" for an UpdateRule."""
    return FAMILIES[type(rule)].name if type(rule) in FAMILIES else MOMENTS


def choices_of(rule: Any) -> dict[str, dict[str, str]]:
    """Return the choices at each place of the rule's family, with their descriptions."""
    return FAMILIES[type(rule)].choices if type(rule) in FAMILIES else CHOICES


def all_choices() -> dict[str, dict[str, set[str]]]:
    """Return the descriptions of every choice in every family, keyed by place and choice."""
    merged: dict[str, dict[str, set[str]]] = {RULE: {name: {rule_sentence(name)} for name in _names()}}
    for choices in (CHOICES, *(family.choices for family in FAMILIES.values())):
        for place, sentences in choices.items():
            for choice, sentence in sentences.items():
                merged.setdefault(place, {}).setdefault(choice, set()).add(sentence)
    return merged


def rule_sentence(name: str) -> str:
    """Return the sentence that names a family in a cause."""
    if name == MOMENTS:
        return "the rule is one of first and second moments, such as Adam"
    return f"the rule is {name}"


def _names() -> list[str]:
    return [MOMENTS, *(family.name for family in FAMILIES.values())]


def hyper_names(rule: Any) -> list[str]:
    """Return the names of the hyper-parameters that affect a rule; see `neighbours_of_moments.hyper_names`."""
    if type(rule) in FAMILIES:
        return FAMILIES[type(rule)].hyper_names(rule)
    return neighbours_of_moments.hyper_names(rule)


def neighbours(rule: Any) -> Iterator[Neighbour]:
    """Yield all rules that differ from this one in one choice, or in the same choice for both moments."""
    if type(rule) not in FAMILIES:
        yield from neighbours_of_moments.neighbours(rule)
        return
    family = FAMILIES[type(rule)]
    for place, choices in family.choices.items():
        if family.is_relevant(rule, place):
            for new in choices:
                if new != (old := getattr(rule, place)):
                    yield Neighbour((Edit(place, old, new),), rule._replace(**{place: new}))


def edits_between(rule: Any, target: Any) -> list[Edit]:
    """Return the edits that turn a rule into a target and affect at least one; one edit if their families differ."""
    if type(rule) is not type(target):
        return [Edit(RULE, family_name(rule), family_name(target))]
    if type(rule) not in FAMILIES:
        return neighbours_of_moments.edits_between(rule, target)
    family = FAMILIES[type(rule)]
    return [
        Edit(place, getattr(rule, place), getattr(target, place))
        for place in family.choices
        if getattr(rule, place) != getattr(target, place)
        and (family.is_relevant(rule, place) or family.is_relevant(target, place))
    ]


def sentence(rule: Any, place: str, choice: str) -> str:
    """Return the description of a choice, without what the rule does not have."""
    if place == RULE:
        return rule_sentence(choice)
    text = choices_of(rule)[place][choice]
    if is_moments(rule) and is_linear(rule):
        text = WITHOUT_ROOT.get(place, {}).get(choice, text)
    if is_moments(rule) and place == "eps" and rule.second_correction == "none":
        text = text.replace(", after the bias correction", "")
    if place == "first_lag" and is_moments(rule) and rule.first in LION:
        text = choices_of(rule)["first"][rule.first]
    return text


def with_usual_values(rule: Any, hyper: HyperParams) -> Formula:
    """Return the rule with these hyper-parameters; usual values replace those that are zero or infinite."""
    missing = {
        name: USUAL_VALUES[name]
        for name in hyper_names(rule)
        if name in USUAL_VALUES and (getattr(hyper, name) == 0 or not np.isfinite(getattr(hyper, name)))
    }
    return Formula(rule, hyper._replace(**missing))


def is_by_leaf(rule: Any) -> bool:
    """Return True if the update of an element depends on other elements of its leaf, or on all leaves."""
    if type(rule) in FAMILIES:
        return FAMILIES[type(rule)].by_leaf
    return rule.trust != "none" or rule.centre != "none" or "norm" in rule.clip or rule.second_scope != "element"


def is_costly(rule: Any) -> bool:
    """Return True if updates are slow to compute, as for named rules that need whole leaves."""
    return type(rule) in FAMILIES and FAMILIES[type(rule)].by_leaf


def is_by_tree(rule: Any) -> bool:
    """Return True if the update of an element depends on all leaves."""
    if type(rule) in FAMILIES:
        return FAMILIES[type(rule)].by_tree
    return "global" in rule.clip or rule.second_scope == "global norm"


def clips_by_tree(rule: Any) -> bool:
    """Return True if the update of an element depends on others only by the global norm of the gradients."""
    if type(rule) in FAMILIES or rule.clip not in CLIPS_BY_NORM:
        return False
    others = (rule.rounding, rule.accumulation, rule.variance, rule.centre, rule.trust)
    return rule.second_scope == "element" and others == ("none",) * len(others)


def equations(formula: Formula) -> list[str]:
    """Return the equations of one step in order, followed by a line with the hyper-parameters."""
    if type(formula.rule) in FAMILIES:
        return FAMILIES[type(formula.rule)].equations(formula)
    return equations_of_moments.equations(formula)


def updates(formula: Formula, inputs: Inputs) -> Iterator[np.ndarray]:
    """Yield the update of each step; see `rule_updates.updates`."""
    if type(formula.rule) in FAMILIES:
        return family_updates(FAMILIES[type(formula.rule)], formula, inputs)
    return rule_updates.updates(formula, inputs)


def update_array(formula: Formula, inputs: Inputs) -> np.ndarray:
    """Return all updates as one array of shape (steps, elements) or (steps, settings, elements)."""
    with np.errstate(all="ignore"):
        return np.stack(list(updates(formula, inputs)))


def is_moments(rule: Any) -> bool:
    """Return True if the rule is an UpdateRule."""
    return isinstance(rule, UpdateRule)
