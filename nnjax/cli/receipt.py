"""Make and compare receipts, which contain the checksums and first losses of a run to verify its repetition."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from nnjax.cli.config import Config
from nnjax.cli.evaluation import Outcome
from nnjax.cli.prepare import Prepared
from nnjax.storage.checkpoint import digest
from nnjax.train.engine.errors import format_differences
from nnjax.train.engine.fingerprint import machine_fingerprint
from nnjax.types import PyTree

FIRST = 10  # number of first losses in a receipt
# Relative tolerance of the first losses, before training amplifies rounding errors. For digits on a CPU, they differ by
# 2e-7 between XLA's optimization levels 0 and 3. A GPU that multiplies in tf32 rounds factors by up to 5e-4.
LOSS_TOLERANCE = 1e-3
# Relative tolerance of the test loss, which amplified rounding errors can change as much as a new seed. Between the
# same two optimization levels, it differs by 5e-4 with one seed, and by 7e-8 with another.
TEST_TOLERANCE = 0.1

Receipt = Mapping[str, Any]


class Difference(NamedTuple):
    """An array of the parameters or the state that differs in at least one bit."""

    name: str
    numbers: int  # number of differing elements
    size: int
    largest: float  # largest absolute difference; NaN for NaN, or if an array is missing or differs in shape or dtype


def make_receipt(
    config: Config,
    prepared: Prepared,
    outcome: Outcome,
    *,
    losses: np.ndarray,
    mesh: Mesh | None,
    resumed_anyway: bool,
) -> Receipt:
    """Return the receipt of a finished run, as plain values.

    Args:
      config: the settings of the run.
      prepared: the data of the run.
      outcome: the trained weights and their test scores.
      losses: losses (steps,) or (members, steps); only the first `FIRST` steps are recorded.
      mesh: the devices over which the members or the batches were split.
      resumed_anyway: True if the run was resumed with --anyway.
    """
    return {
        "weights": network_digest(outcome.params, outcome.state),
        "data": data_digest(prepared),
        "first_losses": np.asarray(losses)[..., :FIRST].astype(float).tolist(),
        "test": None if outcome.scores is None else dict(outcome.scores),
        "bits_depend_on": machine_fingerprint() | _layout(config, 1 if mesh is None else mesh.size),
        "resumed_anyway": resumed_anyway,
    }


def _layout(config: Config, devices: int) -> dict[str, str]:
    """Return the number of members, the strategy and the mesh, which affect the exact result."""
    several = config.members is not None
    return {
        "members": str(config.members) if several else "none",
        "strategy": str(config.strategy) if several else "none",
        "mesh": f"{'members' if several else 'batch'} {devices}" if devices > 1 else "none",
    }


def network_digest(params: PyTree, state: PyTree) -> str:
    """Return a single SHA-256 of the parameters and the state."""
    return digest({"params": params, "state": state})


def data_digest(prepared: Prepared) -> str:
    """Return a single SHA-256 of the training, validation and test data."""
    return digest((prepared.training, prepared.held_out, prepared.dataset.test))


def data_problem(prepared: Prepared, receipt: Receipt, kind: str) -> str:
    """Return a message if the data differ from the receipt of a "run" or a "search", else ""."""
    if data_digest(prepared) == receipt["data"]:
        return ""
    return f"the data or their split have changed since the {kind}: their SHA-256 does not match the receipt"


def describe_inexactness(receipt: Receipt, changes: list[tuple[str, str, str]], kind: str) -> str:
    """Explain why bitwise equal results cannot be expected; return "" if they can.

    Args:
      receipt: the receipt.
      changes: differences between the machines that affect exact results.
      kind: "run", whose weights are compared, or "search", whose scores are compared.
    """
    if not (changes or receipt["resumed_anyway"]):
        return ""
    reason = f"this machine or its libraries differ:\n{format_differences(changes)}"
    if receipt["resumed_anyway"]:
        reason = f"the {kind} was resumed with --anyway"
    results = "weights" if kind == "run" else "scores"
    return f"bitwise equal {results} cannot be expected, because {reason}"


def weight_differences(saved: Mapping[str, np.ndarray], repeated: Mapping[str, np.ndarray]) -> list[Difference]:
    """Compare arrays with equal names, and return those that differ in at least one bit.

    If an array is missing on one side, or its shape or dtype differs, all of its elements count as different.

    >>> from nnjax.cli import receipt
    >>> receipt.weight_differences({"w": np.array([1.0, 2.0])}, {"w": np.array([1.0, 2.5])})
    [Difference(name='w', numbers=1, size=2, largest=0.5)]
    """
    differences = []
    for name in sorted(saved.keys() | repeated.keys()):
        a, b = (np.asarray(leaves[name]) if name in leaves else None for leaves in (saved, repeated))
        if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
            size = max(v.size for v in (a, b) if v is not None)
            differences.append(Difference(name, size, size, math.nan))
            continue
        bits_a, bits_b = (np.ascontiguousarray(v).reshape(-1, 1).view(np.uint8) for v in (a, b))
        unequal = (bits_a != bits_b).any(1)
        if unequal.any():
            with np.errstate(invalid="ignore"):
                largest = np.abs(a.astype(float) - b.astype(float)).reshape(-1)[unequal].max()
            differences.append(Difference(name, int(unequal.sum()), a.size, float(largest)))
    return differences


def loss_differences(receipt: Receipt, repeated: Receipt) -> list[tuple[str, float, float]]:
    """Return the differences that exceed rounding errors, as (name, value in the receipt, repeated value).

    There are at most two: one of the first losses (for an ensemble, the earliest of the first member that differs), and
    the test loss. The relative tolerances are `LOSS_TOLERANCE` and `TEST_TOLERANCE`.
    """
    saved, repetition = (_numbers(r["first_losses"]) for r in (receipt, repeated))
    differences = []
    if saved.shape != repetition.shape:
        differences.append(("number of first losses", float(saved.size), float(repetition.size)))
    else:
        differs = ~np.isclose(repetition, saved, rtol=LOSS_TOLERANCE, atol=1e-7, equal_nan=True)
        for index in np.argwhere(differs)[:1]:
            member = "" if saved.ndim == 1 else f" of member {index[0]}"
            name = f"loss of step {index[-1]}{member}"
            differences.append((name, float(saved[tuple(index)]), float(repetition[tuple(index)])))
    a, b = (float(_numbers((r["test"] or {"loss": None})["loss"])) for r in (receipt, repeated))
    if not np.isclose(b, a, rtol=TEST_TOLERANCE, atol=1e-7, equal_nan=True):
        differences.append(("test loss", a, b))
    return differences


def _numbers(values: Any) -> np.ndarray:
    """Return an array with NaN for all non-finite numbers, because JSON files store these as null."""
    numbers = np.array(values, float)  # None becomes NaN
    return np.where(np.isfinite(numbers), numbers, np.nan)
