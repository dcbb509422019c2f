"""Why two optimizers differ: the form of each, and what is different between the forms."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nnjax.optcheck.rules.library_rules import NAMED, Named
from nnjax.optcheck.rules.rule_choices import AXES, differences, used
from nnjax.optcheck.rules.update_rule import Form, Hyper
from nnjax.optcheck.search.fitting import Target, free, refit, reproduces
from nnjax.optcheck.search.rule_search import EXACT, Explanation, Search, by_cost, named, search
from nnjax.optcheck.trace.gradient_script import Script
from nnjax.optcheck.trace.traces import Trace, allowed, seen_by

HYPER = {
    "learning_rate": "learning rate",
    "b1": "β₁",
    "b2": "β₂",
    "eps": "ε",
    "eps_root": "ε inside the root",
    "momentum": "momentum μ",
    "dampening": "dampening",
    "weight_decay": "weight decay",
    "momentum_decay": "NAdam's momentum decay",
    "first_start": "m₀, the first moment's start",
    "second_start": "v₀, the second moment's start",
    "clip": "bound of the clipping",
    "trust": "trust coefficient",
}


class Cause(NamedTuple):
    """One thing that the candidate does otherwise."""

    axis: str  # of the forms, or the name of a hyper-parameter
    reference: str  # what the reference does
    candidate: str  # what the candidate does
    value: str  # of the candidate: the choice, or the number
    leaves: tuple[str, ...] | None = None  # where; None for all

    @property
    def id(self) -> str:
        """A name for `allow`, such as "eps-outside", "lr-in-velocity" or "b2"."""
        if self.value not in AXES.get(self.axis, {}):
            return self.axis
        known = {"rate_place-inside": "lr-in-velocity", "rate_place-outside": "lr-outside-velocity"}
        name = f"{self.axis}-{self.value}".replace(" ", "-")
        return known.get(name, name)


def check_ids(causes: Sequence[str]) -> None:
    """Raises ValueError for what no cause is called, a slip of the pen that would allow nothing."""
    known = {f"{axis}-{choice}".replace(" ", "-") for axis, choices in AXES.items() for choice in choices}
    known |= {*HYPER, "precision", "lr-in-velocity", "lr-outside-velocity"}
    if isinstance(causes, str):
        raise ValueError(f"optcheck: allow must be a list, as [{causes!r}], got {causes!r}")
    if unknown := set(causes) - known:
        near = {close for name in unknown for close in difflib.get_close_matches(name, sorted(known), 3)}
        raise ValueError(f"optcheck: no cause is called {', '.join(unknown)}; near are {', '.join(near) or 'none'}")


def target_of(trace: Trace, given: Script, dtype: str, leaves: list[int] | None = None) -> Target:
    """The updates of a trace, of some leaves, as a target of the search."""
    seen = seen_by(trace, given)
    target = Target(trace.updates, allowed(trace.updates, trace.updates, trace.params, dtype), seen)
    return target if leaves is None else target.part(np.flatnonzero(np.isin(seen.leaf, leaves)))


def identify_form(target: Target, guess: Named | None, seconds: float) -> Search:
    """The known form that makes these updates, whatever it is next to.

    Args:
      target: the updates.
      guess: what it may be.
      seconds: when to give up.
    """
    if (known := known_as_it_is(target, guess)) is not None:
        return _identified(*known)
    closest = by_cost(named(Hyper(), target), target)
    for fit, (form, *_) in closest[:EXACT]:
        hyper = refit(form, fit.hyper, target, free(form, fit.hyper)).hyper
        if reproduces(form, hyper, target):
            return _identified(form, hyper)
    return search(target, Named(closest[0][1][0], closest[0][0].hyper), seconds)


def known_as_it_is(target: Target, guess: Named | None) -> Named | None:
    """A guess, or a known optimizer with its own hyper-parameters and the learning rate that fits."""
    if guess is not None and reproduces(guess.form, guess.hyper, target):
        return guess
    known = (Named(form, hyper) for form, hyper, _, _ in named(Hyper(), target))
    return next((each for each in known if reproduces(*each, target)), None)


def _identified(form: Form, hyper: Hyper) -> Search:
    return Search((Explanation(form, hyper, (), ""),), "a known optimizer", len(NAMED), True)


def causes_of(reference: Named | None, form: Form, hyper: Hyper) -> tuple[Cause, ...]:
    """What a form does otherwise than the reference; nothing where that is unknown."""
    if reference is None:
        return ()
    choices = [
        Cause(edit.axis, AXES[edit.axis][edit.old], AXES[edit.axis][edit.new], edit.new)
        for edit in differences(reference.form, form)
    ]
    both = set(used(form)) & set(used(reference.form)) | {"first_start", "second_start", "eps_root", "momentum_decay"}
    numbers = []
    for name, said in HYPER.items():
        old, new = float(getattr(reference.hyper, name)), float(getattr(hyper, name))
        if name in both and not np.isclose(old, new, rtol=1e-6, atol=0):
            numbers.append(Cause(name, f"{said} is {old:.6g}", f"{said} is {new:.6g}", f"{new:.6g}"))
        elif name in used(form) and name not in used(reference.form):
            numbers.append(Cause(name, f"there is no {said}", f"{said} is {new:.6g}", f"{new:.6g}"))
    return (*choices, *numbers)
