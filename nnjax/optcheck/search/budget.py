"""Limit a search by the number of rules that it fits, and record how many it tried at each level."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from nnjax.optcheck.rules.neighbours import Edit
from nnjax.optcheck.rules.update_rule import Formula
from nnjax.optcheck.search.fitting import Target, reproduces

MOST_ATTEMPTS = 40_000  # formulas of a level that are compared after the first step
LARGEST_EPS = 100.0  # rules with a larger ε are excluded, because they act like rules without a second moment
T = TypeVar("T")


class Attempt(NamedTuple):
    """A formula to try, and how it was derived."""

    formula: Formula
    edits: tuple[Edit, ...] = ()  # edits that lead to it from the rule at which the search starts
    library: str = ""  # name of the library rule that it equals or was derived from; "" if there is none


class Level(NamedTuple):
    """The number of rules tried at one level of a search, and whether the level was completed."""

    name: str
    forms: int
    complete: bool


class Budget:
    """A limit on the number of fits. Unlike a time limit, it gives the same result on every machine."""

    def __init__(self, fits: int) -> None:
        self.fits, self.used, self.exhausted = fits, 0, False
        self.levels: list[Level] = []

    def limit(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items, one fit each, until the budget is exhausted."""
        for item in items:
            if self.used >= self.fits:
                self.exhausted = True
                return
            self.used += 1
            yield item

    def take(self, fits: int) -> bool:
        """Use a number of fits at once for a level without fits, and return True if that many are left."""
        enough = self.used + fits <= self.fits
        self.used += fits if enough else 0
        return enough

    def matches(
        self, name: str, attempts: Iterable[Attempt | None], target: Target, excluded: int = 0
    ) -> list[Attempt]:
        """Return the attempts of a level that reproduce the updates, and record the level.

        Args:
          name: the name of the level.
          attempts: the formulas to try; None is counted as a rule that its first step excludes.
          target: the updates to reproduce.
          excluded: number of further formulas that were already excluded by their first updates.
        """
        forms, compared, matches = excluded, 0, []
        for attempt in attempts:
            forms, compared = forms + 1, compared + (attempt is not None)
            if compared > MOST_ATTEMPTS:
                self.exhausted = True
                break
            if attempt is not None and attempt.formula.hyper.eps < LARGEST_EPS and reproduces(attempt.formula, target):
                matches.append(attempt)
        self.levels.append(Level(name, forms, not self.exhausted))
        return matches
