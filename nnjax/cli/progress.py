"""Print the progress of a run if there is no terminal, as one line for every tenth of the run."""

import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nnjax.cli.history import VALIDATION_SCORES, finite_mean, in_words
from nnjax.train.engine.options import Record


def progress_lines(epochs: float) -> Callable[[Any, Record], None]:
    """Return a callback for `train.fit` that prints the epoch and the mean scores at every tenth of the run."""
    last = 0

    def callback(ts: Any, record: Record) -> None:
        nonlocal last
        tenth = int(10 * record["epoch"] / epochs) if epochs else 0
        if tenth == last or jax.process_index() > 0:
            return
        last = tenth  # smaller than before when the next group of members starts
        shown = [name for name in VALIDATION_SCORES if name in record]
        scores = [f"  {in_words(name)} {finite_mean(record[name]):.4f}" for name in shown]
        mean = f"mean of {np.size(record['loss'])} networks: " if np.ndim(record["loss"]) else ""
        epoch = min(round(record["epoch"], 1), epochs)
        if tenth:
            line = f"epoch {epoch:g}/{epochs:g}  {mean}loss {finite_mean(record['loss']):.4f}{''.join(scores)}"
            print(line, file=sys.stderr)

    return callback
