"""Checkpoints: any pytree in one file, to the bit; damage is found, and the last one that is whole is used."""

import hashlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from nnjax.storage import tensor_file
from nnjax.storage.atomic_write import write_file
from nnjax.types import PyTree

FORMAT = "nnjax-checkpoint"
WHAT = "checkpoint of nnjax"
NAME = re.compile(r"step-(\d{12,})\.safetensors")

Like: TypeAlias = PyTree | Callable[[dict[str, Any]], PyTree]


def save(path: Path, tree: PyTree, metadata: dict[str, Any]) -> None:
    """Write a tree and plain values to one file, whole or not at all.

    Args:
      path: of the file; what stands there is replaced once the new file is on the disk.
      tree: arrays, typed keys and Python's numbers; also None and other subtrees without leaves.
      metadata: plain values, as JSON has them.

    Raises:
      OSError: with the path and the number of bytes, for a full disk; what stood at the path is whole.
      TypeError: for leaves that are no numbers, and for metadata that are not plain values.

    >>> from pathlib import Path
    >>> from nnjax.storage import checkpoint
    >>> tree = {"w": jnp.arange(3.0), "key": jax.random.key(0), "best": None}
    >>> checkpoint.save(Path("one.safetensors"), tree, {"step": 100})
    >>> back, metadata = checkpoint.load(Path("one.safetensors"), like=tree)
    >>> back["w"], metadata
    (array([0., 1., 2.], dtype=float32), {'step': 100})
    """
    write_file(path, *tensor_file.pack(tree, FORMAT, metadata))


def load(path: Path, like: Like) -> tuple[PyTree, dict[str, Any]]:
    """The tree and the plain values of a file.

    Args:
      path: of the file.
      like: a tree of the same structure, of arrays or of shapes as from `jax.eval_shape`; or a function that makes one
        of the plain values.

    Returns:
      The tree, of NumPy arrays and typed keys, bit for bit as it was saved; and the plain values.

    Raises:
      FileNotFoundError: where there is no file.
      ValueError: for a file that is damaged, with the leaves; that is no checkpoint; or whose structure, shapes or
        dtypes are not those of `like`, with all differences.
    """
    leaves, header = _read(path)
    return _into(like, leaves, header, path)


def read_metadata(path: Path) -> dict[str, Any]:
    """The plain values of a file, of which only the header is read.

    Raises:
      FileNotFoundError: where there is no file.
      ValueError: for a file that is cut short or no checkpoint, or whose header is damaged.
    """
    with path.open("rb") as file:
        return _ours(path, tensor_file.read_header(file, path, WHAT)).metadata


def verify(path: Path) -> dict[str, Any]:
    """The plain values of a file that is whole: every leaf is read and held against its SHA-256.

    Raises:
      FileNotFoundError, ValueError: as `load` does, but that no structure is asked for.
    """
    with path.open("rb") as file:
        header = _ours(path, tensor_file.read_header(file, path, WHAT))
        for _ in tensor_file.read_leaves(file, path, header):
            pass
    return header.metadata


def latest(folder: Path, like: Like) -> tuple[Path, PyTree, dict[str, Any]]:
    """The newest checkpoint of a folder that is whole.

    Args:
      folder: of files named as by `step_path`.
      like: a tree of the same structure, as for `load`.

    Returns:
      The path, the tree and the plain values.

    Raises:
      FileNotFoundError: where the folder holds no checkpoint.
      ValueError: where all are damaged, with what each one lacks; or where the newest whole one has another structure.

    Warns:
      UserWarning: where a newer one is damaged: which, in what leaf, and what is used instead.
    """
    problems: list[str] = []
    for path in reversed(files(folder)):
        try:
            leaves, header = _read(path)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        if problems:
            warnings.warn("; ".join([*problems, f"{path} is used instead"]), stacklevel=2)
        tree, metadata = _into(like, leaves, header, path)  # another network is no damage: an older file is no answer
        return path, tree, metadata
    if problems:
        lines = [f"{folder} holds no checkpoint that is whole:", *problems]
        raise ValueError("\n  ".join([*lines, f"delete {folder} to begin again from the first step"]))
    raise FileNotFoundError(f"{folder} holds no checkpoint")


def digest(tree: PyTree) -> str:
    """One SHA-256 of a tree of arrays: of their paths, dtypes, shapes and bytes.

    Arrays are read where they lie, memory-mapped ones too; what is not contiguous is copied in pieces of 16 MB.

    >>> from nnjax.storage import checkpoint
    >>> checkpoint.digest({"w": jnp.ones(2)}) == checkpoint.digest({"w": np.ones(2, np.float32)})
    True
    """
    leaves, _ = tensor_file.named(tree)
    lines = [f"{name} {tensor_file.leaf_sha256(*tensor_file.on_host(name, leaf))}\n" for name, leaf in leaves.items()]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def step_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step stands."""
    return folder / f"step-{step:012d}.safetensors"


def step_of(path: Path) -> int:
    """The step of a checkpoint, as its name says."""
    match = NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} is not named as a checkpoint is, step-000000000100.safetensors")
    return int(match[1])


def files(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest last, damaged ones too; not what a killed process left half-written."""
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=step_of)


def _ours(path: Path, header: tensor_file.Header) -> tensor_file.Header:
    if header.sha256 is None or header.format != FORMAT:
        raise ValueError(f"{path} is no {WHAT}: its format is {header.format or 'not named'}, expected {FORMAT}")
    return header


def _read(path: Path) -> tuple[dict[str, Any], tensor_file.Header]:
    leaves, header = tensor_file.read(path, WHAT)
    return leaves, _ours(path, header)


def _into(like: Like, leaves: dict[str, Any], header: tensor_file.Header, path: Path) -> tuple[PyTree, dict[str, Any]]:
    wanted = like(header.metadata) if callable(like) else like
    return tensor_file.into(
        wanted, leaves, header.empty, f"{path} is of another network or optimizer:"
    ), header.metadata
