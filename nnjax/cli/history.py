"""Records of a training history: units, averages over members, rows for metrics.csv."""

from typing import Any

import numpy as np

Record = dict[str, Any]


def finite_mean(values: Any) -> float:
    """Return the mean of the finite numbers; NaN if there is none."""
    finite = np.asarray(values, float)[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def in_target_units(record: Record, target_std: float) -> Record:
    """Convert the root mean squared errors of a regression from standard deviations to the units of the target."""
    return {k: v * target_std if k.removesuffix("_sd").endswith("rmse") else v for k, v in record.items()}


def average_members(history: list[Record]) -> list[dict[str, float]]:
    """Return the records with each number averaged over the members."""
    return [{k: finite_mean(v) if isinstance(v, np.ndarray) else v for k, v in record.items()} for record in history]


def split_members(history: list[Record], ended: np.ndarray) -> list[Record]:
    """Return one record for each member and epoch.

    Args:
      history: records of an ensemble, with arrays (members,).
      ended: (members,) bool, whether a member stopped before the last epoch; its records end there.
    """
    rows = []
    for member, early in enumerate(ended):
        for record in history:
            row = {k: float(v[member]) if isinstance(v, np.ndarray) else v for k, v in record.items()}
            if not (early and np.isnan(row["loss"])):
                rows.append({"member": member, **row})
    return rows
