"""Split rows randomly into two parts."""

import numpy as np

from nnjax import checks


class SplitError(ValueError):
    """Error for a split that would leave one part empty.

    Attributes:
      share: the share of the second part.
      rows: the number of rows.
    """

    def __init__(self, share: float, rows: int):
        super().__init__(f"split_rows: a share of {share:g} of {rows} rows leaves one part empty")
        self.share, self.rows = share, rows


def split_rows(y: np.ndarray, share: float, *, seed: int = 0, stratify: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Split rows randomly into two parts with the same proportions of the classes.

    Args:
      y: (n,) labels; with stratify=False only its length matters.
      share: the share of the second part, in (0, 1). At least one row of each class stays in the first part.
      seed: random seed of the split.
      stratify: True to keep the proportions of the classes; False for a completely random split.

    Returns:
      Sorted row numbers of the first and the second part.

    Raises:
      ValueError: if the share is outside (0, 1), or if the seed is negative.
      SplitError: a ValueError, if one part would be empty.
      TypeError: if `y` is not (n,), or if another argument has the wrong type.

    >>> first, second = data.split_rows(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25)
    >>> len(first), len(second)
    (6, 2)
    """
    share = checks.in_range("split_rows", "share", share, "(0, 1)")
    checks.positive_int("split_rows", "seed", seed, 0, bits=64)
    checks.flag("split_rows", "stratify", stratify)
    got = y
    try:
        y = np.asarray(y)
        labels = np.unique(y) if stratify else y
    except (ValueError, TypeError):  # for example, lists of different lengths, random keys, or unorderable objects
        y = np.zeros(())
    if y.ndim < 1 or (stratify and y.ndim > 1):
        raise TypeError(f"split_rows: y must be labels (n,), got {got!r:.80}; stratify=False accepts any (n, ...)")
    if len(y) < 2:
        raise SplitError(share, len(y))
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(y == label) for label in labels] if stratify else [np.arange(len(y))]
    # Round the cumulative counts, because rounding the counts of many small classes would change the total share
    totals = np.floor(np.cumsum([len(group) * share for group in groups]) + 0.5).astype(int)
    counts = np.diff(totals, prepend=0)
    parts = [rng.permutation(group)[: min(count, len(group) - 1)] for group, count in zip(groups, counts, strict=True)]
    second = np.sort(np.concatenate(parts))
    if len(second) in (0, len(y)):
        raise SplitError(share, len(y))
    return np.setdiff1d(np.arange(len(y)), second), second
