"""The receipt of a run: by what it is known whether the run, done again, is the same run."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from nnjax.cli.config import Config
from nnjax.storage.checkpoint import digest
from nnjax.train.identity import machine
from nnjax.types import PyTree

FIRST = 10  # losses
LOSS_TOLERANCE = 1e-3  # of the first losses, relative: rounding has not been amplified yet
TEST_TOLERANCE = 0.1  # of the test loss, relative: rounding has; this is what another seed could do too

Receipt = dict[str, Any]
FREE = ("data", "data_dir", "save_every", "keep")  # settings that change nothing; the data have a digest of their own


class Difference(NamedTuple):
    """A leaf that is not the same to the bit."""

    name: str
    numbers: int  # that differ
    size: int
    largest: float  # difference; NaN where one of the two is


def make(
    config: Config,
    *,
    params: PyTree,
    state: PyTree,
    data: PyTree,
    losses: np.ndarray,
    scores: Mapping[str, float] | None,
    devices: int,
    resumed_anyway: bool,
) -> Receipt:
    """The receipt of a finished run, plain values.

    Args:
      config: its settings.
      params: its parameters, or (members, ...).
      state: alike.
      data: all examples, those held out too.
      losses: (steps,) or (members, steps), of which the first are noted.
      scores: on the test data; None where there is no network to test.
      devices: over which its members were spread.
      resumed_anyway: whether it went on although something had changed.
    """
    return {
        "weights": digest({"params": params, "state": state}),
        "settings": settings_digest(config),
        "data": digest(data),
        "first_losses": np.asarray(losses)[..., :FIRST].astype(float).tolist(),
        "test": None if scores is None else dict(scores),
        "bits_depend_on": surroundings(config, devices),
        "resumed_anyway": resumed_anyway,
    }


def surroundings(config: Config, devices: int) -> dict[str, str]:
    """What the bits of a run depend on besides its settings and data, and how its networks are laid out."""
    several = config.members is not None
    layout = {
        "members": str(config.members) if several else "none",
        "strategy": config.strategy if several else "none",
        "mesh": f"{'members' if several else 'batch'} {devices}" if devices > 1 else "none",
    }
    return machine() | layout


def settings_digest(config: Config) -> str:
    """One SHA-256 of the settings that decide the run."""
    deciding = {name: value for name, value in asdict(config).items() if name not in FREE}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def compare(saved: Mapping[str, np.ndarray], again: Mapping[str, np.ndarray]) -> list[Difference]:
    """The leaves, by name, that are not the same to the bit; one that is missing or of another shape differs whole.

    >>> from nnjax.cli import receipt
    >>> receipt.compare({"w": np.array([1.0, 2.0])}, {"w": np.array([1.0, 2.5])})
    [Difference(name='w', numbers=1, size=2, largest=0.5)]
    """
    found = []
    for name in sorted(saved.keys() | again.keys()):
        a, b = (np.asarray(leaves[name]) if name in leaves else None for leaves in (saved, again))
        if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
            size = max(v.size for v in (a, b) if v is not None)
            found.append(Difference(name, size, size, math.nan))
            continue
        bits_a, bits_b = (np.ascontiguousarray(v).reshape(-1, 1).view(np.uint8) for v in (a, b))
        other = (bits_a != bits_b).any(1)
        if other.any():
            with np.errstate(invalid="ignore"):
                largest = np.abs(a.astype(float) - b.astype(float)).reshape(-1)[other].max()
            found.append(Difference(name, int(other.sum()), a.size, float(largest)))
    return found


def close(receipt: Receipt, again: Receipt) -> list[tuple[str, float, float]]:
    """What is further from the receipt than rounding explains: the name, the receipt's number, the new one.

    The first losses are to agree to `LOSS_TOLERANCE`, the test loss to `TEST_TOLERANCE`, both relative.
    """
    saved, now = (_numbers(r["first_losses"]) for r in (receipt, again))
    far = []
    if saved.shape != now.shape:
        far.append(("number of first losses", float(saved.size), float(now.size)))
    else:
        apart = ~np.isclose(now, saved, rtol=LOSS_TOLERANCE, atol=1e-7, equal_nan=True)
        for at in np.argwhere(apart)[:1]:
            who = "" if saved.ndim == 1 else f" of member {at[0]}"
            far.append((f"loss of step {at[-1]}{who}", float(saved[tuple(at)]), float(now[tuple(at)])))
    a, b = (float(_numbers((r["test"] or {"loss": None})["loss"])) for r in (receipt, again))
    if not np.isclose(b, a, rtol=TEST_TOLERANCE, atol=1e-7, equal_nan=True):
        far.append(("test loss", a, b))
    return far


def _numbers(values: Any) -> np.ndarray:
    """Numbers of which those that are not finite are NaN, as in a file, where they are null."""
    numbers = np.array(values, float)  # None becomes NaN
    return np.where(np.isfinite(numbers), numbers, np.nan)
