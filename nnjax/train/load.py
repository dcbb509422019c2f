"""Save the networks of a finished run, and load those of any run, from its folder."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nnjax import checks
from nnjax.storage import checkpoint, tensor_file
from nnjax.storage.atomic_write import write_file
from nnjax.storage.paths import as_path
from nnjax.storage.tree_file import nested
from nnjax.train.engine.fit_state import Best
from nnjax.types import Params, PyTree, State, TrainState

WEIGHTS = "weights.safetensors"


class SavedRun(NamedTuple):
    """The networks in the folder of a run. For an ensemble every array has a leading axis (members, ...)."""

    params: Params  # parameters after the last step
    state: State
    best: Best | None  # the network with the lowest validation loss; None if there was no validation
    average: Params | None  # averaged parameters; None unless the run is finished and has `evaluation_params`


def load(out: str | Path) -> SavedRun:
    """Return the networks that `fit(out=…)` or `nnjax train` saved in a folder.

    They are read from `weights.safetensors` if the run is finished, or otherwise from its latest intact checkpoint. All
    checksums are verified. Dictionaries, tuples and lists of parameters are restored; named tuples become dictionaries.

    Args:
      out: folder of the run.

    Returns:
      `SavedRun(params, state, best, average)`.

    Raises:
      FileNotFoundError: if the folder contains neither the weights of a run nor a checkpoint.
      ValueError: if the weights of a finished run, or all checkpoints of an unfinished one, are damaged.

    >>> digits = data.load("digits")
    >>> run = train.Run(nn.mlp([8], 10), losses.cross_entropy, optim.adam(1e-2), batch_size=32)
    >>> result = train.fit(run, digits.train, epochs=1, out="runs/small")
    >>> params, state, _, _ = train.load("runs/small")
    >>> bool((run.predict(params, state, digits.test.x) == run.predict(*result.ts[1:3], digits.test.x)).all())
    True
    """
    folder = as_path(out)
    weights = folder / WEIGHTS
    if weights.is_file():
        return _saved_run(_read(weights)[0])
    for path in reversed(checkpoint.files(folder)):
        try:
            tree, metadata = _read(path)
        except ValueError:
            if path == checkpoint.files(folder)[0]:
                raise
            continue
        ts, best = tree["fit"]["train"], tree["fit"].get("best")
        saved = _saved_run({"params": ts["params"], "state": ts["state"], "best": best})
        return saved if metadata["numbered"] else jax.tree.map(lambda a: a[0], saved)
    raise FileNotFoundError(
        f"load: {folder} holds neither {WEIGHTS} nor checkpoints; pass the folder that fit got as out=. The groups of "
        "an unfinished ensemble have their own folders, such as group-000"
    )


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


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    leaves, header = tensor_file.read(path)
    return nested(path, leaves, header), header.metadata


def _saved_run(tree: dict[str, Any]) -> SavedRun:
    arrays: PyTree = jax.tree.map(jnp.asarray, tree)
    best = arrays.get("best")
    return SavedRun(arrays["params"], arrays["state"], best and Best(**best), arrays.get("average"))
