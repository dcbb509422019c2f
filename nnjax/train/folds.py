"""Which rows each member of an ensemble is trained and validated on: k-fold, leave-one-out, bootstrap.

Member f draws `rows[f][batch_indices(key, step, m_f, batch_size)]`, so that it is the run on `data[rows[f]]`. Weights
of zero would be something else: batches would have holes, and BatchNorm would see the rows held out.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from nnjax import checks
from nnjax.types import Key


class Rows(NamedTuple):
    """Rows of a data set, for each member as many as its size says; the rest fills up and is not read."""

    table: Array | np.ndarray  # (members, m) int32
    sizes: Array | np.ndarray  # (members,) int32, ≤ m


class Folds(NamedTuple):
    """The rows that each member is trained on, and those held out from it, on which it is validated."""

    train: Rows
    held_out: Rows


def k_fold(key: Key, n: int, k: int, *, stratify: Any = None) -> Folds:
    """Each row is held out from one of k members; the parts differ by one row at most.

    Args:
      key: decides the parts.
      n: number of rows.
      k: number of members, in 2 … n.
      stratify: labels (n,); each part then has its share of each, as near as whole rows allow.

    Raises:
      ValueError: for k outside 2 … n, or labels of another length.

    >>> folds = train.k_fold(jax.random.key(0), 10, 3)
    >>> folds.train.sizes.tolist(), folds.held_out.sizes.tolist()
    ([6, 7, 7], [4, 3, 3])
    """
    n, k = checks.positive_int("k_fold", "n", n), checks.positive_int("k_fold", "k", k)
    if not 2 <= k <= n:
        raise ValueError(f"k_fold: k must be in 2 … {n}, the number of rows, got {k}")
    order = np.asarray(jax.random.permutation(checks.key("k_fold", key), n))
    if stratify is not None:
        labels = np.asarray(stratify)
        if labels.shape != (n,):
            raise ValueError(f"k_fold: stratify must be one label for each row, ({n},), got {labels.shape}")
        order = order[np.argsort(labels[order], kind="stable")]
    part = np.empty(n, int)
    part[order] = np.arange(n) % k
    return _split([np.flatnonzero(part == f) for f in range(k)], n)


def leave_one_out(n: int) -> Folds:
    """Row f is held out from member f.

    Args:
      n: number of rows, and of members.

    Raises:
      ValueError: for n < 2.

    >>> train.leave_one_out(4).train.table.tolist()
    [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    """
    if checks.positive_int("leave_one_out", "n", n) < 2:
        raise ValueError("leave_one_out: n must be ≥ 2, got 1")
    return _split([np.array([f]) for f in range(n)], n)


def bootstrap(key: Key, n: int, members: int) -> Folds:
    """Each member is trained on n rows drawn with replacement, and validated on those that it did not draw.

    Args:
      key: decides the rows.
      n: number of rows.
      members: number of members.

    Raises:
      ValueError: for n < 2, or where a member drew all rows (only for very small n).

    >>> folds = train.bootstrap(jax.random.key(0), 100, 3)
    >>> folds.train.table.shape, folds.held_out.sizes.tolist()
    ((3, 100), [39, 40, 41])

    Source: Efron 1979; Breiman 1996 (bagging).
    """
    n, members = checks.positive_int("bootstrap", "n", n), checks.positive_int("bootstrap", "members", members)
    drawn = np.asarray(jax.random.randint(checks.key("bootstrap", key), (members, n), 0, n))
    left = [np.setdiff1d(np.arange(n), rows) for rows in drawn]
    if not all(len(rows) for rows in left):
        raise ValueError(f"bootstrap: of {n} rows a member drew all, and none is left to validate on; take another key")
    return Folds(_rows(list(drawn)), _rows(left))


def check_rows(where: str, rows: Rows, n: int) -> Rows:
    """Rows of one's own are rows of the data.

    Raises:
      ValueError: for shapes that do not fit, sizes out of range, or rows that the data does not have.
    """
    table, sizes = np.asarray(rows.table), np.asarray(rows.sizes)
    if not (np.issubdtype(table.dtype, np.integer) and np.issubdtype(sizes.dtype, np.integer)):
        raise TypeError(f"{where}: table and sizes must be integers, got {table.dtype} and {sizes.dtype}")
    if table.ndim != 2 or sizes.shape != table.shape[:1]:
        raise ValueError(f"{where}: table must be (members, m) and sizes (members,), got {table.shape}, {sizes.shape}")
    if sizes.min() < 1 or sizes.max() > table.shape[1]:
        raise ValueError(f"{where}: sizes must be in 1 … {table.shape[1]}, got {sizes.min()} … {sizes.max()}")
    table = table[:, : sizes.max()]
    read = np.arange(table.shape[1]) < sizes[:, None]
    found = table[read]
    if found.min() < 0 or found.max() >= n:
        raise ValueError(
            f"{where}: rows must be in 0 … {n - 1}, the rows of the data, got {found.min()} … {found.max()}"
        )
    return Rows(np.where(read, table, 0).astype(np.int32), sizes.astype(np.int32))


def _split(held_out: Sequence[np.ndarray], n: int) -> Folds:
    """Everything else is trained on."""
    return Folds(_rows([np.setdiff1d(np.arange(n), rows) for rows in held_out]), _rows(held_out))


def _rows(rows: Sequence[np.ndarray]) -> Rows:
    width = max(len(r) for r in rows)
    table = np.stack([np.pad(r, (0, width - len(r))) for r in rows]).astype(np.int32)
    return Rows(table, np.array([len(r) for r in rows], np.int32))
