"""Store the results of a run as JSON: a row for each contender and variant, and the machine's fingerprint."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnjax.storage.atomic_write import write_json

SCHEMA = "nnjax-benchmarks-1"

OURS = "ours"
AGAIN = "ours again"  # a second process of nnjax (A/A test), which shows the noise
LIMIT = "limit"


class Row(NamedTuple):
    """The results of one contender for one variant. Times are in seconds per unit of work."""

    case: str  # such as "mlp"
    variant: str  # such as "784-64-64-10, batch 32"
    peer: str  # `OURS`, `AGAIN`, `LIMIT`, or the name of another peer
    form: str  # such as "naive", or "fast" for the code that the peer's documentation recommends
    unit: str  # the unit of work, such as "step"
    samples: tuple[float, ...]  # one sample per round; empty if there is a problem
    stages: dict[str, float]  # seconds: "trace", "lower", "compile" if known; "first" call; "all", with set-up
    error: float  # difference from float64 as a multiple of the allowed error; above 1 if the result is wrong
    flops: int  # operations in one unit of work
    bytes: int  # minimum memory traffic of one unit of work
    limit: float | None  # measured seconds for the matrix products and memory traffic of one unit of work
    memory: dict[str, int]  # bytes of arguments, temporaries, outputs and peak, if known
    figures: dict[str, float]  # further results, such as accuracies
    problem: str | None  # reason why there are no samples, or None


class Record(NamedTuple):
    """The results of a run of the benchmarks."""

    fingerprint: dict[str, Any]
    rows: tuple[Row, ...]


def save_record(path: Path, record: Record) -> None:
    """Write a record to a JSON file atomically."""
    rows = [row._asdict() for row in record.rows]
    write_json(path, {"schema": SCHEMA, "fingerprint": record.fingerprint, "rows": rows})


def load_record(path: Path) -> Record:
    """Read a record from a JSON file.

    Raises:
      ValueError: if the file is not JSON or has a different schema.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{path}: got schema {schema!r}, expected {SCHEMA!r}; measure again")
    rows = [Row(**{**row, "samples": tuple(row["samples"])}) for row in content["rows"]]
    return Record(content["fingerprint"], tuple(rows))


def find_rows(
    rows: Sequence[Row],
    *,
    case: str | None = None,
    variant: str | None = None,
    peer: str | None = None,
    form: str | None = None,
) -> list[Row]:
    """Return the rows with these values; None matches any value."""
    values = (case, variant, peer, form)
    return [row for row in rows if all(value in (None, field) for value, field in zip(values, row[:4], strict=True))]
