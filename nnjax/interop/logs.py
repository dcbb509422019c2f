"""Convert histories to rows of numbers, for data frames, CSV files and TensorBoard."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnjax.storage.atomic_write import write_records
from nnjax.train.engine.options import Callback, Record
from nnjax.types import TrainState


def history_rows(history: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Convert a history to rows of numbers, one for each epoch, or for each epoch and member of an ensemble.

    Args:
      history: the records of a result, or a list with the record of a callback. Each entry of an array in a record,
        such as a score per class, becomes a column "name/index".

    Returns:
      A dictionary from column to number for each row. Rows of ensembles also have the column "member".

    >>> history = [{"epoch": 1.0, "step": 9, "loss": np.array([0.5, 0.25])}]
    >>> interop.history_rows(history)
    [{'member': 0, 'epoch': 1.0, 'step': 9, 'loss': 0.5}, {'member': 1, 'epoch': 1.0, 'step': 9, 'loss': 0.25}]
    """
    rows = []
    for record in history:
        for member in np.ndindex(np.shape(record["loss"])):  # for a single run, one iteration with ()
            row: dict[str, float] = {"member": member[0]} if member else {}
            for name, value in record.items():
                numbers = np.asarray(value)[member] if np.ndim(value) else np.asarray(value)
                row |= {
                    "/".join(map(str, (name, *index))): numbers[index].item() for index in np.ndindex(numbers.shape)
                }
            rows.append(row)
    return rows


def csv_log(path: str | Path) -> Callback:
    """Return a callback for `fit` that adds each record to a CSV file, with the columns of `history_rows`.

    The file is complete after every call. If it exists, only its rows of earlier steps are kept, so a resumed run
    continues the file. A different run needs a different file.

    Args:
      path: path of the file.

    Raises:
      OSError: during `fit`, if writing fails.
      ValueError: during `fit`, if the file exists and does not contain such rows.

    >>> run = train.Run(nn.mlp([8], 10), losses.cross_entropy, optim.adam(1e-2), batch_size=64)
    >>> _ = train.fit(run, data.load("digits").train, epochs=2, callbacks=[interop.csv_log("log.csv")])
    >>> np.loadtxt("log.csv", delimiter=",", skiprows=1).shape  # step, epoch, loss
    (2, 3)
    """
    path = Path(path).expanduser()

    def write(ts: TrainState, record: Record) -> None:
        earlier: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                earlier = [row for row in csv.DictReader(file) if _step(path, row) < record["step"]]
        write_records(path, [*earlier, *history_rows([record])])

    return write


def _step(path: Path, row: Mapping[str, Any]) -> int:
    """Return the step of a row in an existing file, and check that the file is a log."""
    try:
        return int(row["step"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"csv_log: {path} exists and is not a log of fit; choose a different file") from None


def tensorboard_log(writer: Any) -> Callback:
    """Return a callback for `fit` that passes each record to a TensorBoard writer.

    The curves are named like the columns of `history_rows`; for an ensemble, "name/member".

    Args:
      writer: a `SummaryWriter` of tensorboardX (`pip install 'nnjax[tensorboard]'`) or `torch.utils.tensorboard`. Close
        the writer after `fit`, because it writes in the background.

    Raises:
      TypeError: if the writer has no method `add_scalar`.

    >>> class Writer:  # with tensorboardX: with SummaryWriter("runs/a") as writer: …
    ...     def add_scalar(self, name, value, step):
    ...         print(name, step)
    >>> run = train.Run(nn.mlp([8], 10), losses.cross_entropy, optim.adam(1e-2), batch_size=64)
    >>> log = interop.tensorboard_log(Writer())
    >>> _ = train.fit(run, data.load("digits").train, epochs=1, callbacks=[log])
    epoch 23
    loss 23
    """
    if not hasattr(writer, "add_scalar"):
        raise TypeError(
            f"tensorboard_log: writer must be a SummaryWriter, got {writer!r:.80}; pass SummaryWriter(folder)"
        )

    def write(ts: TrainState, record: Record) -> None:
        for row in history_rows([record]):
            suffix = f"/{row['member']}" if "member" in row else ""
            for name, value in row.items():
                if name not in ("member", "step"):
                    writer.add_scalar(name + suffix, value, int(row["step"]))

    return write
