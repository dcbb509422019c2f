"""Name the differences between two formulas."""

import difflib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nnjax.optcheck.reading.difference import Line
from nnjax.optcheck.rules.families import RULE, all_choices, edits_between, hyper_names, sentence
from nnjax.optcheck.rules.neighbours import READ
from nnjax.optcheck.rules.update_rule import STARTS, Formula

HYPER_NAMES = {
    "learning_rate": "learning rate",
    "b1": "β₁",
    "b2": "β₂",
    "eps": "ε",
    "eps_root": "ε inside the root",
    "eps_state": "ε added to the second moment",
    "momentum": "momentum μ",
    "dampening": "dampening",
    "weight_decay": "weight decay",
    "momentum_decay": "momentum decay ψ of NAdam",
    "first_start": "initial first moment m₀",
    "second_start": "initial second moment v₀",
    "velocity_start": "initial velocity b₀",
    "rescaling_start": "initial average of squared steps s₀",
    "clip": "clipping bound",
    "trust": "trust coefficient",
    "gamma": "factor γ",
    "b3": "β₃",
    "power": "exponent κ of the decay rate β₂",
    "floor": "lower bound ε₂ of the parameters' RMS",
    "distance": "initial distance estimate d₀",
    "delta": "threshold δ of the cosine",
    "ratio": "factor ρ for the weight decay of projected leaves",
    "rate_decay": "decay κ of the learning rate",
    "period": "period n of the schedule, in steps",
}
SHORT_IDS = {"rate_position-inside": "lr-in-velocity", "rate_position-outside": "lr-outside-velocity"}


class Cause(NamedTuple):
    """One difference between the candidate and the reference."""

    place: str  # a field of the rule or of HyperParams, "rule" or "precision"
    reference: str  # what the reference does
    candidate: str  # what the candidate does
    value: str  # the candidate's choice or number
    leaves: tuple[str, ...] | None = None  # leaves that differ; None for all leaves

    @property
    def id(self) -> str:
        """Return the name of the cause for `allow`, such as "eps-outside", "lr-in-velocity" or "b2"."""
        return _choice_id(self.place, self.value) if self.value in all_choices().get(self.place, {}) else self.place


DOUBLE, SINGLE = "all values are float64", "some values are float32, although all inputs are float64"
PRECISION = Cause("precision", DOUBLE, SINGLE, "")
REFERENCE_PRECISION = Cause("precision", SINGLE, DOUBLE, "")
NO_SCHEDULE = "the learning rate has no schedule in the optimizer"
EQUATION = "equation"  # `Cause.place` of an equation that no known choice describes
BOTH_PRECISIONS = Cause("precision", SINGLE, "some values are float32, and rounded differently", "")


def check_ids(ids: Sequence[str]) -> None:
    """Raise ValueError for a string or unknown ids of causes, because typos would otherwise be ignored silently."""
    valid_ids = {_choice_id(place, choice) for place, choices in all_choices().items() for choice in choices}
    valid_ids |= {*HYPER_NAMES, PRECISION.id, EQUATION}
    if isinstance(ids, str):
        raise ValueError(f"optcheck: allow must be a list such as [{ids!r}], got {ids!r}")
    if unknown := set(ids) - valid_ids:
        similar = {name for wrong in unknown for name in difflib.get_close_matches(wrong, sorted(valid_ids), 3)}
        raise ValueError(
            f"optcheck: unknown cause {', '.join(sorted(unknown))} in allow; "
            f"similar names: {', '.join(sorted(similar)) or 'none'}"
        )


def causes_of(
    reference: Formula | None, candidate: Formula, leaves: tuple[str, ...] | None = None
) -> tuple[Cause, ...]:
    """Return the differences between the formulas of candidate and reference, or () if the reference is unknown.

    Args:
      reference: the formula of the reference.
      candidate: the formula of the candidate.
      leaves: the leaves to which the candidate's formula applies; None for all.
    """
    if reference is None:
        return ()
    causes = [
        Cause(place, sentence(reference.rule, place, old), sentence(candidate.rule, place, new), new, leaves)
        for place, old, new in edits_between(reference.rule, candidate.rule)
    ]
    if getattr(reference.rule, "schedule", "") == "current":
        causes = [cause._replace(reference=NO_SCHEDULE) if _is_new_schedule(cause) else cause for cause in causes]
    elif getattr(reference.rule, "schedule", "current") not in READ:
        causes = [
            cause._replace(candidate=NO_SCHEDULE) if cause.id == "schedule-current" else cause for cause in causes
        ]
    if any(cause.place == RULE for cause in causes):
        return tuple(causes)  # hyper-parameters of different families cannot be compared
    ours, theirs = set(hyper_names(candidate.rule)), set(hyper_names(reference.rule))
    both = ours & theirs | {*STARTS, "eps_root", "eps_state", "momentum_decay"}
    for name in HYPER_NAMES:
        text = hyper_name(name, candidate.rule)
        old, new = float(getattr(reference.hyper, name)), float(getattr(candidate.hyper, name))
        if name in both and not np.isclose(old, new, rtol=1e-6, atol=0):
            causes.append(Cause(name, f"{text} is {old:.6g}", f"{text} is {new:.6g}", f"{new:.6g}", leaves))
        elif name in ours - theirs:
            causes.append(Cause(name, f"there is no {text}", f"{text} is {new:.6g}", f"{new:.6g}", leaves))
    return tuple(causes)


def hyper_name(name: str, rule: Any) -> str:
    """Return the name of a hyper-parameter in a rule, such as "clipping bound"."""
    scaled = name == "clip" and "scaled" in getattr(rule, "clip", "")
    return "norm to which gradients are scaled" if scaled else HYPER_NAMES[name]


def _is_new_schedule(cause: Cause) -> bool:
    """Return True if the candidate changes the learning rate by a schedule that it contains."""
    return cause.place == "schedule" and cause.value not in READ


def causes_of_lines(lines: Sequence[Line]) -> tuple[Cause, ...]:
    """Return the equations that differ, as causes."""
    return tuple(
        Cause(EQUATION, f"{line.name} ← {line.reference}", f"{line.name} ← {line.candidate}", line.name)
        for line in lines
        if line.differs
    )


def _choice_id(place: str, choice: str) -> str:
    name = f"{place}-{choice}".replace(" ", "-")
    return SHORT_IDS.get(name, name) if place != RULE else name.lower()
