"""Try many sets of terms at one step, together, before one of them is solved at all steps."""

import itertools
from collections.abc import Iterator

import numpy as np

from nnjax.optcheck.reading.eps_inside import with_eps_inside
from nnjax.optcheck.reading.least_squares import exact_steps
from nnjax.optcheck.reading.terms import EPS, OVER, Terms, probe_step

FIRST = 4  # number of attempts that are tried together at first
MOST = 64  # the same later


def possible(attempts: Iterator[Terms]) -> Iterator[Terms]:
    """Yield the attempts that are exact at one step, and those of other forms than sums."""
    count = FIRST
    while chunk := list(itertools.islice(attempts, count)):
        yield from itertools.compress(chunk, _are_possible(chunk))
        count = min(2 * count, MOST)


def _are_possible(attempts: list[Terms]) -> list[bool]:
    """Return for each attempt whether it is exact at one step."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, attempt in enumerate(attempts):
        if attempt.form not in ("max", "min"):
            kinds = ((EPS in term, term.endswith(OVER)) for term in attempt.values)
            groups.setdefault((len(attempt.y), attempt.square is None, *kinds), []).append(i)
    result = [True] * len(attempts)
    for places in groups.values():
        together: Terms | None = _stacked([attempts[i] for i in places])
        if together is not None and together.square is not None:
            inside = with_eps_inside(together)
            together = inside[0] if inside else None
        exact = [False] * len(places) if together is None else exact_steps(together)
        for i, value in zip(places, exact, strict=True):
            result[i] = bool(value)
    return result


def _stacked(attempts: list[Terms]) -> Terms:
    """Return one step of attempts with equally many terms as if they were steps of one attempt."""
    rows = [attempt.at_step(probe_step(attempt.y)) for attempt in attempts]
    columns = zip(*(row.values.values() for row in rows), strict=True)
    return rows[0]._replace(
        y=np.concatenate([row.y for row in rows]),
        values={term: np.concatenate(column) for term, column in zip(rows[0].values, columns, strict=True)},
        d=np.concatenate([np.asarray(row.d) for row in rows]),
        rounding=np.concatenate([np.asarray(row.rounding) for row in rows]),
        square=None if rows[0].square is None else np.concatenate([np.asarray(row.square) for row in rows]),
    )
