"""Write the file with the networks of a finished run, which `train.load` reads."""

from pathlib import Path
from typing import Any

from nnjax import checks
from nnjax.storage import tensor_file
from nnjax.storage.atomic_write import write_file
from nnjax.train.engine.fit_state import Best
from nnjax.types import Params, TrainState

WEIGHTS = "weights.safetensors"


def save_weights(folder: Path, ts: TrainState, best: Best | None, average: Params | None) -> None:
    """Write the final parameters and state, the best network and the averaged parameters to a file with checksums.

    Warns:
      RuntimeWarning: if the file cannot be written; the last checkpoint has the same values.
    """
    tree: dict[str, Any] = {"params": ts.params, "state": ts.state}
    if best is not None:
        tree["best"] = best._asdict()
    if average is not None:
        tree["average"] = average
    try:
        write_file(folder / WEIGHTS, *tensor_file.serialize(tree, "nnjax-weights", {}))
    except OSError as error:
        checks.warn(f"fit: {folder / WEIGHTS} cannot be written ({error})", RuntimeWarning)
