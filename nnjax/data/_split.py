"""A part of the rows held out."""

import numpy as np

from nnjax import checks


def split_rows(y: np.ndarray, share: float, *, seed: int = 0, stratify: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Rows in two parts at random, each class in the same proportion.

    Args:
      y: (n,) labels; with stratify=False only its length counts.
      share: of the second part, in (0, 1); of each class at least one row stays in the first.
      seed: of the draw.
      stratify: whether classes keep their proportions.

    Returns:
      Rows of the first and of the second part, sorted.

    Raises:
      ValueError: for a share outside (0, 1), or where one part would be empty.

    >>> first, second = data.split_rows(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25)
    >>> len(first), len(second)
    (6, 2)
    """
    share = checks.in_range("split_rows", "share", share, "(0, 1)")
    if len(y) < 2:
        raise ValueError(f"split_rows: {len(y)} rows cannot be parted")
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(y == label) for label in np.unique(y)] if stratify else [np.arange(len(y))]
    # Rounding is shared out over the classes, so that many small classes do not add up to another share
    wanted = np.floor(np.cumsum([len(group) * share for group in groups]) + 0.5).astype(int)
    counts = np.diff(wanted, prepend=0)
    parts = [rng.permutation(group)[: min(count, len(group) - 1)] for group, count in zip(groups, counts, strict=True)]
    second = np.sort(np.concatenate(parts))
    if len(second) in (0, len(y)):
        raise ValueError(f"split_rows: a share of {share:g} of {len(y)} rows leaves one part empty")
    return np.setdiff1d(np.arange(len(y)), second), second
