"""Write and read the file with the weights of a run or a search."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.storage import tensor_file
from nnjax.storage.atomic_write import write_file
from nnjax.storage.paths import open_regular
from nnjax.types import PyTree


def save_weights(path: Path, params: PyTree, state: PyTree) -> None:
    """Write parameters and state as safetensors, with names such as `params/1/w` and the SHA-256 of each array."""
    write_file(path, *tensor_file.serialize({"params": params, "state": state}, "nnjax-weights", {}))


def load_weights(path: Path, params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
    """Read the parameters and the state from a file.

    Args:
      path: path of the file.
      params: pytree of arrays or of shapes and dtypes, with the expected structure.
      state: pytree of arrays or of shapes and dtypes, with the expected structure.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if the file is damaged, or if names, shapes or dtypes differ; the message lists all differences.
    """
    _check_exists(path)
    leaves, header = tensor_file.read(path)
    like = {"params": params, "state": state}
    error = f"{path} is from a different network:"
    tree = jax.tree.map(jnp.asarray, tensor_file.restore_structure(like, leaves, header.empty, error))
    return tree["params"], tree["state"]


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    """Read the arrays of a weights file, keyed by name, and describe the damage to the file (None if intact).

    Raises:
      FileNotFoundError: if the file does not exist.
    """
    _check_exists(path)
    leaves: dict[str, np.ndarray] = {}
    try:
        with open_regular(path) as file:
            header = tensor_file.read_header(file, path)
            for name, leaf in tensor_file.read_leaves(file, path, header):
                leaves[name] = leaf
    except ValueError as error:
        return leaves, str(error)
    return leaves, None


def _check_exists(path: Path) -> None:
    if not os.path.lexists(path):
        raise FileNotFoundError(f"no weights file {path}")
