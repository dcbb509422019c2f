"""Save any pytree losslessly in one file. Corruption is detected, and the newest intact checkpoint is used."""

import hashlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from nnjax.storage import tensor_file
from nnjax.storage.atomic_write import write_file
from nnjax.storage.paths import as_path, open_regular
from nnjax.types import PyTree

FORMAT = "nnjax-checkpoint"
NAME = re.compile(r"step-(\d{12,})\.safetensors")

Like: TypeAlias = PyTree | Callable[[dict[str, Any]], PyTree]


def save(path: str | Path, tree: PyTree, metadata: dict[str, Any]) -> None:
    """Write a tree and its metadata to one file atomically.

    Args:
      path: path of the file. An existing file is replaced once the new one is on disk; missing folders are created.
      tree: pytree of numeric arrays, typed random keys and Python numbers. Empty subtrees, such as None, are preserved.
      metadata: values that JSON can represent.

    Raises:
      OSError: if writing fails, for example on a full disk; a note gives the path and the number of bytes. An existing
        file stays intact.
      TypeError: if a leaf is not numeric or JSON cannot represent the metadata.
      ValueError: if two leaves have the same name, as in `{"a/b": 1, "a": {"b": 2}}`, or one is named `__metadata__`.

    >>> from pathlib import Path
    >>> from nnjax.storage import checkpoint
    >>> tree = {"w": jnp.arange(3.0), "key": jax.random.key(0), "best": None}
    >>> checkpoint.save(Path("tree.safetensors"), tree, {"step": 100})
    >>> restored, metadata = checkpoint.load(Path("tree.safetensors"), like=tree)
    >>> restored["w"], metadata
    (array([0., 1., 2.], dtype=float32), {'step': 100})
    """
    path, content = as_path(path), tensor_file.serialize(tree, FORMAT, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, *content)


def load(path: str | Path, like: Like) -> tuple[PyTree, dict[str, Any]]:
    """Read a tree and its metadata from a file.

    Args:
      path: path of the file.
      like: a tree with the same structure, whose leaves are arrays or shapes as returned by `jax.eval_shape`; or a
        function of the metadata that returns such a tree.

    Returns:
      The tree, bitwise equal to the saved one, as NumPy arrays and typed random keys; and the metadata.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if the file is damaged, is not a checkpoint, or differs from `like` in structure, shapes or
        dtypes; the message names the damaged leaves or all differences.
    """
    path = as_path(path)
    return _restore(path, like, *_read(path))


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata of a file without reading its leaves.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if the file is truncated or not a checkpoint, or if its header is damaged.
    """
    path = as_path(path)
    with open_regular(path) as file:
        return _check_format(path, tensor_file.read_header(file, path)).metadata


def verify(path: str | Path) -> dict[str, Any]:
    """Verify the checksums of a file, with one leaf in memory at a time, and return its metadata.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if the file is damaged or not a checkpoint.
    """
    path = as_path(path)
    with open_regular(path) as file:
        header = _check_format(path, tensor_file.read_header(file, path))
        for _ in tensor_file.read_leaves(file, path, header):
            pass
    return header.metadata


def latest(folder: str | Path, like: Like) -> tuple[Path, PyTree, dict[str, Any]]:
    """Load the newest intact checkpoint in a folder.

    Args:
      folder: a folder with files named by `step_path`.
      like: a tree with the same structure, as in `load`.

    Returns:
      The path, the tree and the metadata.

    Raises:
      FileNotFoundError: if the folder contains no checkpoint.
      ValueError: if all checkpoints are damaged, or if the newest intact one has a different structure.

    Warns:
      UserWarning: if newer checkpoints are damaged; the message names them and the one that is used instead.
    """
    folder, problems = as_path(folder), list[str]()
    for path in reversed(files(folder)):
        try:
            leaves, header = _read(path)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        if problems:
            warnings.warn("; ".join([*problems, f"{path} is used instead"]), stacklevel=2)
        return path, *_restore(path, like, leaves, header)  # raises if the checkpoint is from a different network
    if problems:
        lines = [f"{folder} holds no intact checkpoint:", *problems, f"delete {folder} to start again from step 0"]
        raise ValueError("\n  ".join(lines))
    raise FileNotFoundError(f"{folder} holds no checkpoint")


def digest(tree: PyTree) -> str:
    """Return the SHA-256 of the paths, dtypes, shapes and bytes of a tree of arrays.

    Contiguous arrays, including memory-mapped ones, are read in place; other arrays are copied in chunks of 16 MiB.

    Raises:
      TypeError: if a leaf is not numeric.
      ValueError: if two leaves have the same path.

    >>> from nnjax.storage import checkpoint
    >>> checkpoint.digest({"w": jnp.ones(2)}) == checkpoint.digest({"w": np.ones(2, np.float32)})
    True
    """
    leaves, _ = tensor_file.named_leaves(tree)
    lines = [f"{name} {tensor_file.leaf_sha256(*tensor_file.to_numpy(name, leaf))}\n" for name, leaf in leaves.items()]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def step_path(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint for a step."""
    return folder / f"step-{step:012d}.safetensors"


def step_of(path: Path) -> int:
    """Return the step in the file name of a checkpoint; raise ValueError for other file names."""
    match = NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} is not named like a checkpoint, such as step-000000000100.safetensors")
    return int(match[1])


def files(folder: str | Path) -> list[Path]:
    """Return the paths of all checkpoints in a folder by increasing step, including damaged but not partial files."""
    folder = as_path(folder)
    paths = [path for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(paths, key=step_of)


def _check_format(path: Path, header: tensor_file.Header) -> tensor_file.Header:
    if header.sha256 is None or header.format != FORMAT:
        got = header.format or "unknown"
        raise ValueError(f"{path} is not an nnjax checkpoint: got format {got}, expected {FORMAT}")
    return header


def _read(path: Path) -> tuple[dict[str, Any], tensor_file.Header]:
    leaves, header = tensor_file.read(path)
    return leaves, _check_format(path, header)


def _restore(
    path: Path, like: Like, leaves: dict[str, Any], header: tensor_file.Header
) -> tuple[PyTree, dict[str, Any]]:
    tree = like(header.metadata) if callable(like) else like
    error = f"{path} does not have the expected arrays:"
    return tensor_file.restore_structure(tree, leaves, header.empty, error), header.metadata
