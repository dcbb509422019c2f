"""Compute from how many trials on a search by nnjax is faster than a peer's, although nnjax compiles first."""

import math
import re
from collections.abc import Iterator, Sequence

from benchmarks.harness.record import AGAIN, OURS, Row
from benchmarks.report.variants import first_run, form_label, median_time, title_of

TRIALS = re.compile(r"(\d+) trials\b")  # the number of trials in the name of a variant


def break_even(trials: int, ours: float, compilation: float, peer: float) -> int | None:
    """Return the smallest number of trials for which nnjax with compilation takes less time than a peer.

        compilation + n · ours / trials < n · peer / trials

    Args:
      trials: number of trials in the measured searches.
      ours: seconds of our search without compilation.
      compilation: seconds that our first search takes longer.
      peer: seconds of the peer's search.

    Returns:
      The number n ≥ 1; None if our search takes at least as long as the peer's even without compilation.

    >>> from benchmarks.report.break_even import break_even
    >>> break_even(100, ours=1.0, compilation=3.0, peer=3.0)  # 151 trials: 3 s + 1.51 s, and 4.53 s
    151
    """
    if ours >= peer:
        return None
    return max(1, math.floor(trials * compilation / (peer - ours)) + 1)


def break_even_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each measured search with the break-even point against each form of each peer.

    Times per trial are taken from this search. Of our forms, the one with the smallest break-even point counts.
    """
    for title in dict.fromkeys(map(title_of, rows)):
        measured = [row for row in rows if title_of(row) == title and row.samples]
        trials = TRIALS.match(measured[0].variant) if measured else None
        ours = [row for row in measured if row.peer == OURS]
        if trials is None or not ours:
            continue
        parts = []
        for row in (row for row in measured if row.peer not in (OURS, AGAIN)):
            times = [(median_time(own), first_run(own) - median_time(own)) for own in ours]
            points = [break_even(int(trials[1]), own, extra, median_time(row)) for own, extra in times]
            least = min((point for point in points if point is not None), default=None)
            parts.append(f"{'never' if least is None else f'{least:,}'} ({form_label(row)})")
        if parts:
            yield f"{title}: with compilation, nnjax is faster from this number of trials on: {', '.join(parts)}"
