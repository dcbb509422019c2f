"""What a run of the benchmarks leaves: rows of figures, and the machine they are of, as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnjax.storage.atomic_write import write_json

SCHEMA = "nnjax-benchmarks-1"


class Row(NamedTuple):
    """One peer at one case. Times in seconds of one unit of work."""

    case: str  # "mlp"
    variant: str  # "784-64-64-10, batch 32"
    peer: str  # "ours", "flax.linen"; "ours again" is the A/A pair
    form: str  # "naive", or "fast", as the peer itself recommends
    unit: str  # of work: "step"
    samples: tuple[float, ...]  # a round each; none where there is a problem
    stages: dict[str, float]  # trace, lower, compile, first: seconds, once
    error: float  # largest difference from the float64 reference, relative to what rounding may make; 1 is allowed
    flops: int  # operations of one unit
    bytes: int  # that it must move at the least
    limit: float | None  # seconds: what this machine needs for the products and the traffic of a unit, measured
    memory: dict[str, int]  # bytes: arguments, temporaries, outputs, peak, as far as known
    figures: dict[str, float]  # what a case says besides
    problem: str | None  # why it was not measured


class Record(NamedTuple):
    """A run."""

    fingerprint: dict[str, Any]
    rows: tuple[Row, ...]


def save(path: Path, record: Record) -> None:
    """Writes a record, whole or not at all."""
    rows = [row._asdict() for row in record.rows]
    write_json(path, {"schema": SCHEMA, "fingerprint": record.fingerprint, "rows": rows})


def load(path: Path) -> Record:
    """Reads a record.

    Raises:
      ValueError: for a file of another schema, or none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content.get("schema") if isinstance(content, dict) else None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: no JSON ({error})") from error
    if found != SCHEMA:
        raise ValueError(f"{path}: schema {found!r}, expected {SCHEMA!r}; measure again")
    rows = [Row(**{**row, "samples": tuple(row["samples"])}) for row in content["rows"]]
    return Record(content["fingerprint"], tuple(rows))


def find(rows: Sequence[Row], **wanted: str) -> list[Row]:
    """The rows with these values."""
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]
