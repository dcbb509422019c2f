"""Save any pytree by the paths of its leaves, and load it with a given structure or as nested dictionaries."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from nnjax.storage import tensor_file
from nnjax.storage.atomic_write import write_file
from nnjax.storage.paths import as_path
from nnjax.types import PyTree

FORMAT = "nnjax-tree"
NUMBERS: dict[str, Any] = {"bool": bool, "int": int, "float": float, "complex": complex}
EMPTY: dict[str, Any] = {"()": (), "[]": [], "{}": {}, "None": None}


def save(path: str | Path, tree: PyTree) -> None:
    """Write a pytree to one safetensors file, atomically and with a checksum for every leaf.

    Args:
      path: path of the file. An existing file is replaced once the new one is on disk; a leading "~" is the home
        folder.
      tree: parameters or any pytree of numeric arrays, typed random keys and Python numbers.

    Raises:
      OSError: if writing fails, for example if the folder does not exist. An existing file stays intact.
      TypeError: if a leaf is not numeric, or if `path` is not a path.
      ValueError: if two leaves have the same path, as in `{"a/b": 1, "a": {"b": 2}}`, or one is named `__metadata__`.

    >>> params, _ = nn.named(body=nn.dense(3), head=nn.dense(2)).init(jax.random.key(0), jnp.ones((1, 4)))
    >>> nnjax.save("net.safetensors", params)
    >>> nnjax.load("net.safetensors")["head"]["w"].shape
    (3, 2)
    """
    if not isinstance(path, (str, Path)):
        raise TypeError(
            f"save: path must be a string or a Path, got {type(path).__name__}; the call is save(path, tree)"
        )
    leaves, _ = tensor_file.named_leaves(tree)
    numbers = {name: type(leaf).__name__ for name, leaf in leaves.items() if type(leaf) in NUMBERS.values()}
    write_file(as_path(path), *tensor_file.serialize(tree, FORMAT, {"numbers": numbers}))


def load(path: str | Path, like: PyTree | None = None) -> PyTree:
    """Read a pytree from a safetensors file and check its checksums.

    Args:
      path: path of the file; a leading "~" is the home folder. Files from other programs have no checksums to verify.
      like: a tree with the same structure, whose leaves are arrays or shapes as returned by `jax.eval_shape`. If None,
        dictionaries, tuples and lists are restored as they were saved; named tuples, and all sequences in files from
        other programs, become dictionaries.

    Returns:
      The tree, bitwise equal to the saved one, with JAX arrays, typed random keys and Python numbers as leaves.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if the file is damaged, if it differs from `like` in structure, shapes or dtypes, or if it contains
        64-bit leaves and JAX's x64 mode is off. Without `like`, also if a name is both a leaf and a subtree.

    >>> net = nn.mlp([8], 10)
    >>> params, _ = net.init(jax.random.key(0), jnp.ones((1, 64)))
    >>> nnjax.save("net.safetensors", params)
    >>> shapes, _ = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 64)))
    >>> jax.tree.structure(nnjax.load("net.safetensors", like=shapes)) == jax.tree.structure(params)
    True
    """
    if not isinstance(path, (str, Path)):
        raise TypeError(
            f"load: path must be a string or a Path, got {type(path).__name__}; the call is load(path, like)"
        )
    path = as_path(path)
    leaves, header = tensor_file.read(path)
    if like is not None:
        error = f"{path} differs from like:"
        tree = tensor_file.restore_structure(like, leaves, header.empty, error)
    else:
        numbers = header.metadata.get("numbers", {})
        leaves |= {name: NUMBERS[kind](leaves[name].item()) for name, kind in numbers.items()}
        tree = nested(path, leaves, header)
    return jax.tree.map(lambda leaf: _to_jax(path, leaf), tree)


def nested(path: Path, leaves: dict[str, Any], header: tensor_file.Header) -> PyTree:
    """Return nested dictionaries from leaf names such as "params/1/w", with the tuples and lists that were saved."""
    root: dict[str, Any] = {}
    entries = leaves | {name: EMPTY.get(text, {}) for name, text in (header.empty or {}).items()}
    if list(entries) == ["(the tree itself)"]:
        return next(iter(entries.values()))
    for name, value in entries.items():
        *parents, last = name.split("/")
        node = root
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ValueError(f"{path}: {part} in {name} is a leaf and a subtree; pass like=")
        if last in node:
            raise ValueError(f"{path}: {name} is a leaf and a subtree; pass like=")
        node[last] = value
    return _with_sequences(root, header.sequences, "")


def _with_sequences(tree: PyTree, sequences: dict[str, str], name: str) -> PyTree:
    """Convert dictionaries back to the tuples and lists that were saved."""
    if not isinstance(tree, dict):
        return tree
    items = {key: _with_sequences(value, sequences, f"{name}/{key}".lstrip("/")) for key, value in tree.items()}
    if name not in sequences or sorted(items) != sorted(map(str, range(len(items)))):
        return items
    values = [items[str(i)] for i in range(len(items))]
    return values if sequences[name] == "list" else tuple(values)


def _to_jax(path: Path, leaf: Any) -> Any:
    """Convert a leaf to a JAX array; raise ValueError if its dtype would change."""
    if not hasattr(leaf, "dtype") or isinstance(leaf, jax.Array):
        return leaf
    array = jnp.asarray(leaf)
    if array.dtype != leaf.dtype:
        raise ValueError(f"{path} contains {leaf.dtype}; enable 64 bits by calling load inside jax.enable_x64(True)")
    return array
