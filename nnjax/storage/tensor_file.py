"""Store a pytree as a safetensors file with a SHA-256 checksum of its header and of every leaf.

A safetensors file consists of the length of its header in eight bytes, a JSON header
`{name: {dtype, shape, data_offsets}}`, and the bytes of all leaves. Leaves are named by their paths, such as
`params/1/w`. The header's entry `__metadata__` contains the checksums, the dtypes that safetensors does not support,
the subtrees without leaves, the nodes that are tuples or lists, and the caller's metadata.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.storage.json_file import check_kind
from nnjax.storage.paths import open_regular
from nnjax.types import PyTree

DTYPES = {  # dtypes that safetensors supports; others are stored as uint8, with an extra last axis for the bytes
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{"BF16": "bfloat16", "BOOL": "bool", "C64": "complex64"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
}
CODES = {name: code for code, name in DTYPES.items()}
VERSION = 1
KEY = "key "  # prefix of the dtype of random keys, as in "key threefry2x32"
NOTES = {
    **dict.fromkeys(("sha256", "dtypes", "empty", "sequences"), dict[str, str]),
    "metadata": dict[str, Any],
}
NO_CHECKSUM = b"0" * 64  # placeholder for the header's own checksum during its computation
MOST_HEADER_BYTES = 100_000_000  # same limit as in the safetensors package
CHUNK_BYTES = 1 << 24  # size of the chunks in which non-contiguous arrays are copied for hashing


class Header(NamedTuple):
    """The decoded header of a file."""

    leaves: dict[str, tuple[np.dtype[Any], tuple[int, ...]]]  # stored dtype and shape of each leaf, in file order
    sha256: dict[str, str] | None  # checksum of each leaf; None if the file was not written by nnjax
    dtypes: dict[str, str]  # original dtypes of leaves that are stored with a different dtype
    empty: dict[str, str] | None  # subtrees without leaves, such as {"params/1": "()"}; None if unknown
    sequences: dict[str, str]  # nodes that are tuples or lists, such as {"params": "tuple"}
    format: str  # name of the format, such as "nnjax-checkpoint"
    metadata: dict[str, Any]


def serialize(tree: PyTree, format: str, metadata: dict[str, Any]) -> list[bytes | memoryview]:
    """Return the content of a file that stores a tree, as a list of the header and the bytes of each leaf.

    Args:
      tree: pytree of numeric arrays, typed random keys and Python numbers.
      format: name of the file format, such as "nnjax-checkpoint".
      metadata: values that JSON can represent.

    Raises:
      TypeError: if a leaf is not numeric or JSON cannot represent the metadata.
      ValueError: if two leaves have the same name or one is named `__metadata__`.
    """
    leaves, empty = named_leaves(tree)
    stored, dtypes, sha256 = {}, {}, {}
    for name, leaf in leaves.items():
        array, dtype = to_numpy(name, leaf)
        sha256[name] = leaf_sha256(array, dtype)
        if dtype not in CODES:
            dtypes[name] = dtype
        array = _standard_layout(array)
        stored[name] = array if array.dtype.name in CODES else array[..., None].view(np.uint8)
    stored = dict(
        sorted(stored.items(), key=lambda item: -item[1].dtype.itemsize)
    )  # largest item size first, so that all arrays are aligned
    header: dict[str, Any] = {
        "__metadata__": {
            "checksum": NO_CHECKSUM.decode(),
            "format": format,
            "version": str(VERSION),
            "sha256": json.dumps(sha256),
            "dtypes": json.dumps(dtypes),
            "empty": json.dumps(empty),
            "sequences": json.dumps(sequence_nodes(tree)),
            "metadata": json.dumps(metadata),
        }
    }
    end = 0
    for name, array in stored.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": CODES[array.dtype.name], "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    text = text.replace(NO_CHECKSUM, hashlib.sha256(text).hexdigest().encode(), 1)
    return [len(text).to_bytes(8, "little"), text, *map(_memory, stored.values())]


def read_header(file: io.BufferedReader, path: Path) -> Header:
    """Read and check the header of an open file, and check the length of the file.

    Args:
      file: the file, positioned at its beginning. Afterwards it is positioned at the first leaf.
      path: the path of the file, for error messages.

    Raises:
      ValueError: if the header is damaged, if the file has the wrong length or a different format version, or if it is
        not a safetensors file.
    """
    foreign = f"{path} is damaged or not a safetensors file"
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(size - 8, MOST_HEADER_BYTES):
        raise ValueError(f"{foreign}: header of {length} bytes in a file of {size} bytes")
    text = file.read(length)
    try:
        header = json.loads(text.decode())
        notes = header.pop("__metadata__", {})
        has_checksums = bool(notes.keys() & {"checksum", "sha256"})
        checksum, version = (notes["checksum"].encode(), notes["version"]) if has_checksums else (b"", "")
        entries = sorted((_parse_entry(name, entry) for name, entry in header.items()), key=lambda entry: entry[3:])
        extras = {name: json.loads(notes.get(name, "{}")) for name in NOTES} if has_checksums else {}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{foreign}: invalid header, {error!r}") from error
    if has_checksums and hashlib.sha256(text.replace(checksum, NO_CHECKSUM, 1)).hexdigest().encode() != checksum:
        raise ValueError(f"{path} is damaged: SHA-256 mismatch in the header")
    if has_checksums and version != str(VERSION):
        raise ValueError(f"{path} has format version {version}, expected {VERSION}; update nnjax")
    try:
        extras = {name: check_kind(name, value, NOTES[name]) for name, value in extras.items()}
        for name, stored_dtype, shape, _, _ in entries:
            _check_dtype(name, extras.get("dtypes", {}).get(name), stored_dtype, shape)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{foreign}: invalid header, {error}") from error
    position = 0
    for name, _, _, begin, end in entries:
        if begin != position:
            raise ValueError(f"{foreign}: {name} begins at byte {begin}, expected {position}")
        if 8 + length + end > size:
            raise ValueError(f"{path} is damaged: truncated in {name}, after {size} bytes")
        position = end
    if 8 + length + position != size:
        raise ValueError(f"{path} is damaged: {size} bytes, expected {8 + length + position}")
    leaves = {name: (dtype, shape) for name, dtype, shape, _, _ in entries}
    return Header(
        leaves,
        sha256=extras.get("sha256"),
        dtypes=extras.get("dtypes", {}),
        empty=extras.get("empty"),
        sequences=extras.get("sequences", {}),
        format=notes.get("format", ""),
        metadata=extras.get("metadata", {}),
    )


def read_leaves(file: io.BufferedReader, path: Path, header: Header) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and array of each leaf (for a random key, its key data), in file order.

    Raises:
      ValueError: after the last leaf, if any leaf is damaged; the message names all damaged leaves.
    """
    damaged = []
    for name, (stored_dtype, shape) in header.leaves.items():
        array = np.empty(shape, stored_dtype)
        file.readinto(_memory(array))
        dtype = header.dtypes.get(name, array.dtype.name)
        if dtype != array.dtype.name and not dtype.startswith(KEY):
            array = array.view(jnp.dtype(dtype)).reshape(shape[:-1])
        if header.sha256 is not None and leaf_sha256(array, dtype) != header.sha256.get(name):
            damaged.append(name)
        yield name, array
    if damaged:
        raise ValueError(f"{path} is damaged: SHA-256 mismatch in {', '.join(damaged)}")


def read(path: Path) -> tuple[dict[str, Any], Header]:
    """Read the leaves of a file, by name, and its header. For errors, see `read_header` and `read_leaves`."""
    with open_regular(path) as file:
        header = read_header(file, path)
        leaves: dict[str, Any] = dict(read_leaves(file, path, header))
    for name, dtype in header.dtypes.items():
        if dtype.startswith(KEY):
            leaves[name] = jax.random.wrap_key_data(leaves[name], impl=dtype.removeprefix(KEY))
    return leaves, header


def restore_structure(like: PyTree, leaves: dict[str, Any], empty: dict[str, str] | None, error: str) -> PyTree:
    """Return the leaves of a file in a tree with the same structure as `like`.

    Args:
      like: a tree of arrays, `jax.ShapeDtypeStruct`s or Python numbers.
      leaves: the leaves by name, as returned by `read`.
      empty: the subtrees without leaves, as in `Header`; None if unknown.
      error: first line of the error message.

    Raises:
      ValueError: if names, shapes or dtypes differ; the message lists all differences.
    """
    expected, expected_empty = named_leaves(like)
    differences = _differences(
        {name: _shape_and_dtype(leaf) for name, leaf in leaves.items()},
        {name: _shape_and_dtype(leaf) for name, leaf in expected.items()},
    ) or _differences(expected_empty if empty is None else empty, expected_empty)
    if differences:
        raise ValueError("\n".join([error, *differences]))
    numbers = (bool, int, float, complex)
    values = [
        type(leaf)(leaves[name].item()) if isinstance(leaf, numbers) else leaves[name]
        for name, leaf in expected.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), values)


def named_leaves(tree: PyTree) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the leaves of a tree by name, and its subtrees without leaves, such as `{"params/1": "()"}`.

    Raises:
      ValueError: if two leaves have the same name or one has the reserved name `__metadata__`.
    """
    leaves: dict[str, Any] = {}
    empty: dict[str, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_empty):
        name = checks.path_name(path)
        if name in leaves or name in empty or name == "__metadata__":
            raise ValueError(f"the leaf name {name} is taken; rename the key that contains '/' or is '__metadata__'")
        if _is_empty(leaf):
            empty[name] = repr(leaf) if isinstance(leaf, (tuple, list, dict, type(None))) else type(leaf).__name__
        else:
            leaves[name] = leaf
    return leaves, empty


def sequence_nodes(tree: PyTree) -> dict[str, str]:
    """Return the type name of each non-empty tuple or list in a tree by its path, which is "" for the root."""
    nodes: dict[str, str] = {}
    for path, node in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: type(node) in (tuple, list)):
        if type(node) in (tuple, list) and node:
            name = checks.path_name(path) if path else ""
            nodes[name] = type(node).__name__
            for i, item in enumerate(node):
                inside = sequence_nodes(item)
                nodes |= {"/".join(filter(None, [name, str(i), part])): kind for part, kind in inside.items()}
    return nodes


def to_numpy(name: str, leaf: Any) -> tuple[np.ndarray, str]:
    """Return a leaf as a NumPy array, and its dtype. Random keys become their data and, e.g., "key threefry2x32"."""
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf)), f"{KEY}{jax.random.key_impl(leaf)}"
    array = np.asarray(leaf)
    if not (jnp.issubdtype(array.dtype, np.number) or array.dtype == np.bool_):
        raise TypeError(f"{name}: expected numbers, got {type(leaf).__name__} of dtype {array.dtype}")
    return array, array.dtype.name


def leaf_sha256(array: np.ndarray, dtype: str) -> str:
    """Return the SHA-256 of an array's dtype, shape and bytes."""
    digest = hashlib.sha256(f"{dtype} {array.shape}\n".encode())
    array = np.atleast_1d(array)
    rows = max(1, CHUNK_BYTES * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), rows):
        digest.update(_memory(_standard_layout(array[start : start + rows])))
    return digest.hexdigest()


def _standard_layout(array: np.ndarray) -> np.ndarray:
    """Return the array in C-contiguous, little-endian layout, copying it only if necessary."""
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def _memory(array: np.ndarray) -> memoryview:
    """Return the bytes of a contiguous array without copying."""
    return array.reshape(-1).view(np.uint8).data


def _is_empty(node: Any) -> bool:
    structure: Any = jax.tree.structure(node)
    return structure.num_leaves == 0 and structure.num_nodes == 1


def _parse_entry(name: str, entry: dict[str, Any]) -> tuple[str, np.dtype[Any], tuple[int, ...], int, int]:
    """Check the header entry of a leaf, and return its name, dtype, shape, first byte and end byte."""
    dtype, shape = jnp.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
        raise ValueError(f"{name}: expected non-negative integers, got {entry}")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name}: got {end - begin} bytes, which do not match {dtype}{shape}")
    return name, dtype, shape, begin, end


def _check_dtype(name: str, dtype: str | None, stored: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Raise an error if NumPy does not support the shape, or if the stored array cannot hold the original dtype."""
    np.broadcast_to(np.zeros((), stored), shape)
    if dtype is None:
        return
    if dtype.startswith(KEY):
        data = jax.ShapeDtypeStruct(shape, stored)
        jax.eval_shape(lambda data: jax.random.wrap_key_data(data, impl=dtype.removeprefix(KEY)), data)
    elif stored != np.uint8 or shape[-1:] != (jnp.dtype(dtype).itemsize,):
        raise ValueError(f"{name}: {stored}{shape} cannot hold {dtype}")


def _shape_and_dtype(leaf: Any) -> tuple[tuple[int, ...], str]:
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return tuple(array.shape), array.dtype.name


def _differences(saved: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    return [
        f"  {name}: saved {saved.get(name, 'nothing')}, expected {expected.get(name, 'nothing')}"
        for name in sorted(saved.keys() | expected.keys())
        if saved.get(name) != expected.get(name)
    ]
