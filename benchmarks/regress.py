"""What has become slower from one run of the benchmarks to another."""

from typing import NamedTuple

from benchmarks.fingerprint import differences
from benchmarks.record import Record, Row
from benchmarks.stats import is_slower, ratio, summary

AGAIN = "ours again"  # the A/A pair of every case


class Change(NamedTuple):
    """One row of two runs."""

    old: Row
    new: Row
    by: float  # new over old
    noise: float  # what the case differs from itself by
    slower: bool


def compare(old: Record, new: Record, *, force: bool = False) -> list[Change]:
    """All rows that are in both, the slowest first.

    Args:
      old: a run.
      new: a later one, on the same machine.
      force: compare different machines all the same.

    Raises:
      ValueError: for different machines; and where nothing is in both.
    """
    apart = differences(old.fingerprint, new.fingerprint)
    if apart and not force:
        raise ValueError("compare: not the same machine: " + "; ".join(apart) + "; --force compares them all the same")
    before = {_key(row): row for row in old.rows}
    pairs = [(before[_key(row)], row) for row in new.rows if _key(row) in before and row.peer != AGAIN and row.samples]
    pairs = [(one, other) for one, other in pairs if one.samples]
    if not pairs:
        raise ValueError("compare: no case is in both files")
    changes = []
    for one, other in pairs:
        noise = max(_noise(old, one), _noise(new, other))
        by = summary(other.samples).median / summary(one.samples).median
        changes.append(Change(one, other, by, noise, is_slower(one.samples, other.samples, noise)))
    return sorted(changes, key=lambda change: -change.by)


def _key(row: Row) -> tuple[str, ...]:
    return row.case, row.variant, row.peer, row.form, row.unit


def _noise(record: Record, row: Row) -> float:
    """Of the case's A/A pair; 1 where it was not measured."""
    same = [each for each in record.rows if (each.case, each.variant) == (row.case, row.variant)]
    again = next((each for each in same if each.peer == AGAIN and each.samples), None)
    one = next((each for each in same if each.peer == "ours" and again and each.form == again.form), None)
    return 1.0 if one is None or again is None else ratio(one.samples, again.samples).spread
