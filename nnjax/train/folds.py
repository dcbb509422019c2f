"""Split data for the members of an ensemble: k-fold, leave-one-out or bootstrap.

Member f is trained on the rows `rows[f][batch_indices(key, step, m_f, batch_size)]`, exactly like a single run on
`data[rows[f]]`. Giving held-out rows the weight 0 would not be equivalent: batches would contain fewer examples, and
BatchNorm would use the held-out rows.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from jax import Array

from nnjax import checks
from nnjax.data._transfers import allow_transfers
from nnjax.types import Key


class Rows(NamedTuple):
    """The indices of the data rows that each member uses, padded to the same number for all members."""

    table: Array | np.ndarray  # (members, m) int32, the indices, followed by padding
    sizes: Array | np.ndarray  # (members,) int32, ≤ m, the number of rows without padding


class Folds(NamedTuple):
    """The rows that each member is trained on, and the held-out rows that it is validated on."""

    train: Rows
    held_out: Rows

    @classmethod
    def from_splits(cls, splits: Iterable[tuple[Any, Any]]) -> Self:
        """Return folds from a scikit-learn splitter, such as `KFold`, `GroupKFold` or `TimeSeriesSplit`.

        Args:
          splits: for each member a pair (row numbers to train on, row numbers to hold out), as
            `splitter.split(x, y, groups)` yields them.

        Raises:
          ValueError: if there are no splits, if a part is empty, if a row number is negative, or if a row is both
            trained on and held out.
          TypeError: if the splits are not pairs of lists of integers; boolean masks are rejected, too.

        >>> from sklearn.model_selection import TimeSeriesSplit
        >>> folds = train.Folds.from_splits(TimeSeriesSplit(3).split(np.zeros(8)))
        >>> folds.train.sizes.tolist(), folds.held_out.table.tolist()
        ([2, 4, 6], [[2, 3], [4, 5], [6, 7]])
        """
        pairs = [_check_split(i, split) for i, split in enumerate(splits)]
        if not pairs:
            raise ValueError("Folds.from_splits: there are no splits; pass splitter.split(x, y)")
        return cls(*(_pad_rows(part) for part in zip(*pairs, strict=True)))


@allow_transfers
def k_fold(key: Key, n: int, k: int, *, stratify: Any = None) -> Folds:
    """Return folds that hold out each row from one of k members. The parts differ in size by at most one row.

    Args:
      key: random key for the partition.
      n: number of rows.
      k: number of members, in 2 … n.
      stratify: labels (n,). Every part then has the same share of each label, up to rounding to whole rows.

    Raises:
      ValueError: if k is outside 2 … n, or if there are not n labels.
      TypeError: if n or k is not an integer, or if the labels cannot be sorted.

    >>> folds = train.k_fold(jax.random.key(0), 10, 3)
    >>> folds.train.sizes.tolist(), folds.held_out.sizes.tolist()
    ([6, 7, 7], [4, 3, 3])
    """
    n, k = checks.positive_int("k_fold", "n", n), checks.positive_int("k_fold", "k", k)
    if not 2 <= k <= n:
        raise ValueError(f"k_fold: k must be in 2 … {n}, the number of rows, got {k}")
    order = np.asarray(jax.random.permutation(checks.key("k_fold", key), n))
    if stratify is not None:
        try:
            labels = np.asarray(stratify)
        except (ValueError, TypeError):  # NumPy rejects ragged lists and random keys
            labels = np.zeros(())
        if labels.dtype == object:
            raise TypeError(f"k_fold: stratify must be labels that can be sorted, got {stratify!r:.80}")
        if labels.shape != (n,):
            raise ValueError(f"k_fold: stratify must be one label for each row, ({n},), got {labels.shape}")
        order = order[np.argsort(labels[order], kind="stable")]
    part = np.empty(n, int)
    part[order] = np.arange(n) % k
    return _split([np.flatnonzero(part == f) for f in range(k)], n)


def leave_one_out(n: int) -> Folds:
    """Return folds in which member f is trained on all rows except row f, and validated on row f.

    Args:
      n: number of rows, which is also the number of members.

    Raises:
      ValueError: if n < 2.
      TypeError: if n is not an integer.

    >>> train.leave_one_out(4).train.table.tolist()
    [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    """
    if checks.positive_int("leave_one_out", "n", n) < 2:
        raise ValueError("leave_one_out: n must be ≥ 2, got 1")
    return _split([np.array([f]) for f in range(n)], n)


@allow_transfers
def bootstrap(key: Key, n: int, members: int) -> Folds:
    """Return folds with n training rows per member, drawn with replacement; rows that are not drawn are held out.

    Args:
      key: random key for the draws.
      n: number of rows in the data.
      members: number of members, each with its own draws.

    Raises:
      ValueError: if n < 2, or if a member drew all rows, which happens for very small n.
      TypeError: if n or members is not an integer, or the key is not a random key.

    >>> folds = train.bootstrap(jax.random.key(0), 100, 3)
    >>> folds.train.table.shape, folds.held_out.sizes.tolist()
    ((3, 100), [39, 40, 41])

    Source: Efron 1979; Breiman 1996 (bagging).
    """
    n, members = checks.positive_int("bootstrap", "n", n), checks.positive_int("bootstrap", "members", members)
    table = np.asarray(jax.random.randint(checks.key("bootstrap", key), (members, n), 0, n))
    held_out = [np.setdiff1d(np.arange(n), rows) for rows in table]
    if not all(len(rows) for rows in held_out):
        raise ValueError(f"bootstrap: a member drew all {n} rows, so none is left to validate on; use another key")
    return Folds(_pad_rows(list(table)), _pad_rows(held_out))


def check_rows(where: str, rows: Rows, n: int) -> Rows:
    """Check that the data contain the given rows, and return them as int32.

    Raises:
      ValueError: if shapes are inconsistent, if sizes are out of range, or if row numbers are outside the data.
      TypeError: if `rows` is not `Rows` of integers.
    """
    checks.instance(where, "rows", rows, Rows, "train.Rows(table, sizes)")
    table, sizes = np.asarray(rows.table), np.asarray(rows.sizes)
    if not (np.issubdtype(table.dtype, np.integer) and np.issubdtype(sizes.dtype, np.integer)):
        raise TypeError(f"{where}: table and sizes must be integers, got {table.dtype} and {sizes.dtype}")
    if table.ndim != 2 or sizes.shape != table.shape[:1]:
        raise ValueError(f"{where}: table must be (members, m) and sizes (members,), got {table.shape}, {sizes.shape}")
    if sizes.min() < 1 or sizes.max() > table.shape[1]:
        raise ValueError(f"{where}: sizes must be in 1 … {table.shape[1]}, got {sizes.min()} … {sizes.max()}")
    table = table[:, : sizes.max()]
    read = np.arange(table.shape[1]) < sizes[:, None]
    low, high = table[read].min(), table[read].max()
    if low < 0 or high >= n:
        raise ValueError(f"{where}: rows must be in 0 … {n - 1}, the rows of the data, got {low} … {high}")
    return Rows(np.where(read, table, 0).astype(np.int32), sizes.astype(np.int32))


def _check_split(i: int, split: Any) -> tuple[np.ndarray, np.ndarray]:
    """Check a split, and return its training rows and its held-out rows."""
    where = f"Folds.from_splits: split {i}"
    if not isinstance(split, (tuple, list)) or len(split) != 2:
        raise TypeError(f"{where} must be a pair (rows to train on, rows to hold out), got {split!r:.80}")
    for rows in split:
        part = np.asarray(rows)
        if part.ndim != 1 or (part.size and part.dtype.kind not in "iu"):
            raise TypeError(
                f"{where} must hold lists of row numbers, got {part.dtype} of shape {part.shape}; "
                "np.flatnonzero converts a mask"
            )
        if not part.size or part.min() < 0:
            raise ValueError(f"{where} must hold at least one row in each part, and none below 0, got {rows!r:.80}")
    shared = np.intersect1d(*split)
    if shared.size:
        raise ValueError(f"{where}: row {shared[0]} is both trained on and held out")
    return np.asarray(split[0]), np.asarray(split[1])


def _split(held_out: Sequence[np.ndarray], n: int) -> Folds:
    """Return folds that train on all rows that are not held out."""
    return Folds(_pad_rows([np.setdiff1d(np.arange(n), rows) for rows in held_out]), _pad_rows(held_out))


def _pad_rows(rows: Sequence[np.ndarray]) -> Rows:
    width = max(len(r) for r in rows)
    table = np.stack([np.pad(r, (0, width - len(r))) for r in rows]).astype(np.int32)
    return Rows(table, np.array([len(r) for r in rows], np.int32))
