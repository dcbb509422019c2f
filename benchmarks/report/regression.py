"""What has become slower from one run of the benchmarks to another.

A machine is not the same on two days: clocks, other users of a shared one. With the same software the peers have not
changed in between, so that what became of them, in the same variant, is what became of the machine, and it is divided
out. How far they then still are from their middle is the noise between runs, which is larger than that of one
program's turns in one run.
"""

from typing import NamedTuple

import numpy as np

from benchmarks.harness.fingerprint import differences
from benchmarks.harness.record import Record, Row
from benchmarks.report.stats import is_slower, ratio, summary

AGAIN = "ours again"  # the A/A pair of every case
CONTROLS = 2  # other peers of a variant, from which on they tell of the machine
TYPICAL = 0.9  # of the peers are within the noise


class Change(NamedTuple):
    """One row of two runs."""

    old: Row
    new: Row
    by: float  # new over old, the machine's drift divided out
    drift: float  # new over old of the other peers at the same work; 1 where there are too few
    noise: float  # what unchanged programs differ by
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
    before = {_key(row): row for row in old.rows if row.samples}
    pairs = [(before[_key(row)], row) for row in new.rows if _key(row) in before and row.samples]
    pairs = [(one, other) for one, other in pairs if other.peer != AGAIN]
    if not pairs:
        raise ValueError("compare: no case is in both files")
    raw = {_key(other): _median(other) / _median(one) for one, other in pairs}
    drifts = {key: _drift(key, raw) for key in raw}
    changes = []
    for one, other in pairs:
        key = _key(other)
        drift = drifts[key] or 1.0
        noise = max(_noise(old, one), _noise(new, other), _between(key, raw, drifts))
        slower = is_slower(one.samples, [sample / drift for sample in other.samples], noise)
        changes.append(Change(one, other, raw[key] / drift, drift, noise, slower))
    return sorted(changes, key=lambda change: -change.by)


class _Key(NamedTuple):
    """What is one program in two runs."""

    case: str
    variant: str
    unit: str
    peer: str
    form: str


def _key(row: Row) -> _Key:
    return _Key(row.case, row.variant, row.unit, row.peer, row.form)


def _median(row: Row) -> float:
    return summary(row.samples).median


def _drift(key: _Key, raw: dict[_Key, float]) -> float | None:
    """Of the other peers at the same work: neither ours, which is what may have changed, nor the row itself."""
    others = [by for each, by in raw.items() if each[:3] == key[:3] and each.peer not in ("ours", key.peer)]
    return float(np.median(others)) if len(others) >= CONTROLS else None


def _between(key: _Key, raw: dict[_Key, float], drifts: dict[_Key, float | None]) -> float:
    """What most of the other peers are still from the drift, or from no drift where the row has none to divide by."""
    known = drifts[key] is not None
    others = [each for each in raw if each.peer not in ("ours", key.peer) and (drifts[each] is not None or not known)]
    if len(others) < CONTROLS:
        return 1.0
    left = [raw[each] / ((drifts[each] or 1.0) if known else 1.0) for each in others]
    return float(np.exp(np.quantile(np.abs(np.log(left)), TYPICAL)))


def _noise(record: Record, row: Row) -> float:
    """Of the case's A/A pair; 1 where it was not measured."""
    same = [each for each in record.rows if (each.case, each.variant) == (row.case, row.variant)]
    again = next((each for each in same if each.peer == AGAIN and each.samples), None)
    one = next((each for each in same if each.peer == "ours" and again and each.form == again.form), None)
    return 1.0 if one is None or again is None else ratio(one.samples, again.samples).spread
