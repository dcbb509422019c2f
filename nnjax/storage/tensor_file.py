"""A pytree as a safetensors file with a SHA-256 of its header and of each leaf: any flipped bit is found and named.

The format is eight bytes of length, a JSON header `{name: {dtype, shape, data_offsets}}`, the leaves' bytes. Leaves
are named by their paths, `params/1/w`. `__metadata__` in the header holds what safetensors has no place for.
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
from nnjax.types import PyTree

DTYPES = {  # those of safetensors; a leaf of another dtype is stored as bytes, with a last axis for them
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{"BF16": "bfloat16", "BOOL": "bool", "C64": "complex64"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
}
CODES = {name: code for code, name in DTYPES.items()}
VERSION = 1
KEY = "key "  # then the name of the generator
NO_CHECKSUM = b"0" * 64  # stands in the header while its own SHA-256 is taken
PIECE = 1 << 24  # bytes; what must be copied to be hashed is copied piece by piece


class Header(NamedTuple):
    """What stands before the leaves."""

    leaves: dict[str, tuple[np.dtype[Any], tuple[int, ...]]]  # as stored, in the order of the file
    sha256: dict[str, str] | None  # of each leaf; None in a file that is not of nnjax
    dtypes: dict[str, str]  # of the leaves that are stored as something else
    empty: dict[str, str] | None  # the places without leaves: {"params/1": "()"}
    format: str  # "nnjax-checkpoint"
    metadata: dict[str, Any]


def pack(tree: PyTree, format: str, metadata: dict[str, Any]) -> list[bytes | memoryview]:
    """The content of a file that holds the tree: the header, then each leaf's memory, not copied.

    Args:
      tree: arrays of numbers, typed keys and Python's numbers.
      format: the name of what is written.
      metadata: plain values, as JSON has them.

    Raises:
      TypeError: for leaves that are no numbers, and for metadata that are not plain values.
      ValueError: for two leaves whose paths read the same.
    """
    leaves, empty = named(tree)
    stored, dtypes, sha256 = {}, {}, {}
    for name, leaf in leaves.items():
        array, dtype = on_host(name, leaf)
        sha256[name] = leaf_sha256(array, dtype)
        if dtype not in CODES:
            dtypes[name] = dtype
        array = np.ascontiguousarray(_little_endian(array)).reshape(array.shape)  # which makes () into (1,)
        stored[name] = array if array.dtype.name in CODES else array[..., None].view(np.uint8)
    stored = dict(sorted(stored.items(), key=lambda item: -item[1].dtype.itemsize))  # so each is aligned
    header: dict[str, Any] = {
        "__metadata__": {
            "checksum": NO_CHECKSUM.decode(),
            "format": format,
            "version": str(VERSION),
            "sha256": json.dumps(sha256),
            "dtypes": json.dumps(dtypes),
            "empty": json.dumps(empty),
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
    return [len(text).to_bytes(8, "little"), text, *map(_bytes, stored.values())]


def read_header(file: io.BufferedReader, path: Path, what: str) -> Header:
    """What stands before the leaves of an open file, whose length is looked at too.

    Args:
      file: at its beginning; afterwards at the first leaf.
      path: for messages.
      what: that the file should be, for messages.

    Raises:
      ValueError: for a header that is damaged or of something else, and for a file cut short.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= size - 8:
        raise ValueError(f"{path} is damaged or no {what}: a header of {length} bytes in a file of {size}")
    text = file.read(length)
    try:
        header = json.loads(text.decode())
        notes = header.pop("__metadata__", {})
        ours = bool(notes.keys() & {"checksum", "sha256"})
        checksum, version = (notes["checksum"].encode(), notes["version"]) if ours else (b"", "")
        places = sorted((_place(name, entry) for name, entry in header.items()), key=lambda place: place[3:])
        names = ("sha256", "dtypes", "empty", "metadata")
        sha256, dtypes, empty, metadata = (json.loads(notes[name]) if ours else None for name in names)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no {what}: its header makes no sense, {error!r}") from error
    found = hashlib.sha256(text.replace(checksum, NO_CHECKSUM, 1)).hexdigest()
    if ours and found.encode() != checksum:
        raise ValueError(f"{path} is damaged: the SHA-256 of its header is not the one written")
    if ours and version != str(VERSION):
        raise ValueError(f"{path} has version {version} of its format, known is {VERSION}; update nnjax")
    last = 0
    for name, _, _, begin, end in places:
        if begin != last:
            raise ValueError(f"{path} is damaged or no {what}: {name} begins at byte {begin}, expected {last}")
        if 8 + length + end > size:
            raise ValueError(f"{path} is damaged: cut short in {name}, after {size} bytes")
        last = end
    if 8 + length + last != size:
        raise ValueError(f"{path} is damaged: {size} bytes, expected {8 + length + last}")
    leaves = {name: (dtype, shape) for name, dtype, shape, _, _ in places}
    return Header(leaves, sha256, dtypes or {}, empty, notes.get("format", ""), metadata or {})


def read_leaves(file: io.BufferedReader, path: Path, header: Header) -> Iterator[tuple[str, np.ndarray]]:
    """The leaves one after the other; in place of keys their data.

    Raises:
      ValueError: after the last, naming all that are damaged.
    """
    damaged = []
    for name, (dtype, shape) in header.leaves.items():
        array = np.empty(shape, dtype)
        file.readinto(_bytes(array))
        meant = header.dtypes.get(name, array.dtype.name)
        if meant != array.dtype.name and not meant.startswith(KEY):
            array = array.view(jnp.dtype(meant)).reshape(shape[:-1])
        if header.sha256 is not None and leaf_sha256(array, meant) != header.sha256.get(name):
            damaged.append(name)
        yield name, array
    if damaged:
        raise ValueError(f"{path} is damaged: the SHA-256 of {', '.join(damaged)} is not the one written")


def read(path: Path, what: str) -> tuple[dict[str, Any], Header]:
    """All leaves by name, and the header."""
    with path.open("rb") as file:
        header = read_header(file, path, what)
        leaves: dict[str, Any] = dict(read_leaves(file, path, header))
    for name, dtype in header.dtypes.items():
        if dtype.startswith(KEY):
            leaves[name] = jax.random.wrap_key_data(leaves[name], impl=dtype.removeprefix(KEY))
    return leaves, header


def into(like: PyTree, saved: dict[str, Any], empty: dict[str, str] | None, complaint: str) -> PyTree:
    """The leaves in the structure of `like`, whose leaves are arrays, shapes or Python's numbers.

    Raises:
      ValueError: where names, shapes or dtypes differ: the complaint, then a line for each.
    """
    leaves, like_empty = named(like)
    differences = _differences(
        {name: _shape_and_dtype(leaf) for name, leaf in saved.items()},
        {name: _shape_and_dtype(leaf) for name, leaf in leaves.items()},
    ) or _differences(like_empty if empty is None else empty, like_empty)
    if differences:
        raise ValueError("\n".join([complaint, *differences]))
    numbers = (bool, int, float, complex)
    found = [
        type(leaf)(saved[name].item()) if isinstance(leaf, numbers) else saved[name] for name, leaf in leaves.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), found)


def named(tree: PyTree) -> tuple[dict[str, Any], dict[str, str]]:
    """The leaves by the names of their paths, and the places without leaves, as `{"params/1": "()"}`."""
    leaves: dict[str, Any] = {}
    empty: dict[str, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_empty):
        name = checks.path_name(path)
        if name in leaves or name in empty or name == "__metadata__":
            raise ValueError(f"the name {name} of a leaf is taken; rename what has a '/' or '__metadata__' as a key")
        if _is_empty(leaf):
            empty[name] = repr(leaf) if isinstance(leaf, (tuple, list, dict, type(None))) else type(leaf).__name__
        else:
            leaves[name] = leaf
    return leaves, empty


def on_host(name: str, leaf: Any) -> tuple[np.ndarray, str]:
    """A leaf's numbers on the host and its dtype; those of a key are its data, its dtype is `key threefry2x32`."""
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf)), f"{KEY}{jax.random.key_impl(leaf)}"
    array = np.asarray(leaf)
    if not (jnp.issubdtype(array.dtype, np.number) or array.dtype == np.bool_):
        raise TypeError(f"{name}: numbers expected, got {type(leaf).__name__} of dtype {array.dtype}")
    return array, array.dtype.name


def leaf_sha256(array: np.ndarray, dtype: str) -> str:
    """The SHA-256 of dtype, shape and bytes."""
    known = hashlib.sha256(f"{dtype} {array.shape}\n".encode())
    array = np.atleast_1d(array)
    as_it_lies = array.flags.c_contiguous and array.dtype.isnative
    rows = max(1, len(array) if as_it_lies else PIECE * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), rows):
        known.update(_bytes(np.ascontiguousarray(_little_endian(array[start : start + rows]))))
    return known.hexdigest()


def _bytes(array: np.ndarray) -> memoryview:
    """The memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _little_endian(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _is_empty(node: Any) -> bool:
    structure: Any = jax.tree.structure(node)
    return structure.num_leaves == 0 and structure.num_nodes == 1


def _place(name: str, entry: dict[str, Any]) -> tuple[str, np.dtype[Any], tuple[int, ...], int, int]:
    """Dtype, shape, first byte and end of a leaf."""
    dtype, shape = jnp.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
        raise ValueError(f"{name}: natural numbers expected, got {entry}")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name}: {end - begin} bytes for {dtype}{shape}")
    return name, dtype, shape, begin, end


def _shape_and_dtype(leaf: Any) -> tuple[tuple[int, ...], str]:
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return tuple(array.shape), array.dtype.name


def _differences(saved: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    return [
        f"  {name}: saved {saved.get(name, 'nothing')}, wanted {wanted.get(name, 'nothing')}"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name)
    ]
