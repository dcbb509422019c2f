"""Find the size of the ensemble that takes twice as long as a single network."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.harness.record import AGAIN, LIMIT, Row, find_rows
from benchmarks.report.variants import form_label, median_time


class DoublingSize(NamedTuple):
    """The ensemble size that doubles the time of a step, for one form of a peer."""

    label: str
    single: float  # seconds per step of one network
    members: float  # size of the ensemble whose step takes twice as long


def doubling_sizes(rows: Sequence[Row]) -> list[DoublingSize]:
    """Return, for each form of each peer, the ensemble size at which a step takes twice as long as for one network.

    Between the measured sizes, log time is interpolated linearly over log size. The result is infinity if no measured
    size takes twice as long. Forms are omitted unless they were measured with one member and with another size.
    """
    shared = [row for row in find_rows(rows, case="ensemble") if "shared" in row.variant and row.samples]
    sizes = []
    for label in dict.fromkeys(form_label(row) for row in shared if row.peer not in (AGAIN, LIMIT)):
        of_form = [row for row in shared if form_label(row) == label]
        points = sorted((members, members * median_time(row)) for row in of_form if (members := _members(row)))
        if points[0][0] == 1 and len(points) > 1:
            crossing = _crossing(*map(np.log, map(np.array, zip(*points, strict=True))))
            sizes.append(DoublingSize(label, points[0][1], crossing))
    return sorted(sizes, key=lambda size: -size.members)


def _members(row: Row) -> int:
    return int(re.findall(r"\d+", row.variant)[0])


def _crossing(log_size: np.ndarray, log_time: np.ndarray) -> float:
    """Return the size at which the time of the first point doubles, or infinity if it does not."""
    target = log_time[0] + np.log(2)
    above = np.flatnonzero(log_time >= target)
    if not above.size:
        return float("inf")
    i = above[0]
    share = (target - log_time[i - 1]) / (log_time[i] - log_time[i - 1])
    return float(np.exp(log_size[i - 1] + share * (log_size[i] - log_size[i - 1])))
