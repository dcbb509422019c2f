"""Find programs that became slower between two runs.

The speed of a machine varies, because clock rates change and other jobs may run. The software of the other peers
is assumed to be unchanged, so all ratios are divided by the peers' median ratio for the same variant (the drift). The
remaining scatter of the peers is the noise between runs, which is larger than the noise between rounds of one run.
"""

from typing import NamedTuple

import numpy as np

from benchmarks.harness.fingerprint import machine_differences
from benchmarks.harness.record import AGAIN, OURS, Record, Row
from benchmarks.report.stats import is_slower, median_ratio, summarise

ENOUGH_PEERS = 2  # minimum number of peers from which the drift of a variant is estimated
TYPICAL = 0.9  # fraction of the peers that are within the noise


class Change(NamedTuple):
    """The change of one contender for one variant between two runs."""

    old: Row
    new: Row
    factor: float  # new time / old time / drift
    drift: float  # median of new time / old time over the other peers for this variant; 1 if there are too few
    noise: float  # factor by which the times of unchanged programs differ
    slower: bool


class ProgramKey(NamedTuple):
    """A key that identifies a program in both runs."""

    case: str
    variant: str
    unit: str
    peer: str
    form: str


def find_changes(old: Record, new: Record, *, force: bool = False) -> list[Change]:
    """Compare all measured rows that both runs contain, and return the changes, the largest slowdown first.

    Args:
      old: the earlier run.
      new: the later run, on the same machine.
      force: if True, also compare runs of different machines.

    Raises:
      ValueError: if the machines differ and `force` is False, or if the runs have no measured row in common.
    """
    differences = machine_differences(old.fingerprint, new.fingerprint)
    if differences and not force:
        raise ValueError(f"compare: the machines differ ({'; '.join(differences)}); use --force to compare anyway")
    old_rows = {_key(row): row for row in old.rows if row.samples}
    new_rows = {_key(row): row for row in new.rows if row.samples and row.peer != AGAIN}
    pairs = {key: (old_rows[key], row) for key, row in new_rows.items() if key in old_rows}
    if not pairs:
        raise ValueError("compare: the two files have no measured row in common")
    ratios = {key: _median(new_row) / _median(old_row) for key, (old_row, new_row) in pairs.items()}
    drifts = {key: _drift(key, ratios) for key in ratios}
    changes = []
    for key, (old_row, new_row) in pairs.items():
        drift = drifts[key] or 1.0
        noise = max(_pair_noise(old, old_row), _pair_noise(new, new_row), _peer_noise(key, ratios, drifts))
        slower = is_slower(old_row.samples, [sample / drift for sample in new_row.samples], noise)
        changes.append(Change(old_row, new_row, ratios[key] / drift, drift, noise, slower))
    return sorted(changes, key=lambda change: -change.factor)


def _key(row: Row) -> ProgramKey:
    return ProgramKey(row.case, row.variant, row.unit, row.peer, row.form)


def _median(row: Row) -> float:
    return summarise(row.samples).median


def _drift(key: ProgramKey, ratios: dict[ProgramKey, float]) -> float | None:
    """Return the median ratio of the other peers for this variant, excluding nnjax, which may have changed."""
    peers = [ratio for k, ratio in ratios.items() if k[:3] == key[:3] and k.peer not in (OURS, key.peer)]
    return float(np.median(peers)) if len(peers) >= ENOUGH_PEERS else None


def _peer_noise(key: ProgramKey, ratios: dict[ProgramKey, float], drifts: dict[ProgramKey, float | None]) -> float:
    """Return the factor by which most peers' ratios differ from their drift, or from 1 if this row has no drift."""
    has_drift = drifts[key] is not None
    peers = [k for k in ratios if k.peer not in (OURS, key.peer) and (drifts[k] is not None or not has_drift)]
    if len(peers) < ENOUGH_PEERS:
        return 1.0
    residuals = [ratios[k] / ((drifts[k] or 1.0) if has_drift else 1.0) for k in peers]
    return float(np.exp(np.quantile(np.abs(np.log(residuals)), TYPICAL)))


def _pair_noise(record: Record, row: Row) -> float:
    """Return the spread of the A/A test for this variant, or 1 if it was not measured."""
    variant_rows = [r for r in record.rows if (r.case, r.variant) == (row.case, row.variant) and r.samples]
    again = next((r for r in variant_rows if r.peer == AGAIN), None)
    nnjax_row = next((r for r in variant_rows if r.peer == OURS and again and r.form == again.form), None)
    if nnjax_row is None or again is None:
        return 1.0
    return median_ratio(nnjax_row.samples, again.samples).spread
