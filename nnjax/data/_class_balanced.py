"""Sample batches in which all classes are equally frequent."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nnjax import checks
from nnjax.types import Key


def class_balanced(labels: Any) -> Callable[[Key, Array, Array | int, int], Array]:
    """Return a sampler that draws each class with the same probability, for `train.Run(…, sampler=…)`.

        class ~ uniform,   row ~ uniform over the rows of that class, with replacement

    A run of e epochs still has ⌈e n / batch_size⌉ steps, but an epoch does not contain every row. The loss corresponds
    to equally frequent classes, so the predicted probabilities are not calibrated for the data.

    Args:
      labels: (n,) the class of each row of the data.

    Returns:
      A function `(key, step, n, batch_size) -> rows` that returns the row numbers (batch_size,), int32, of a batch.

    Raises:
      ValueError: if the labels are not (n,) with n ≥ 1; when the sampler is called, if the data have a different number
        of rows or are split into folds.

    >>> sampler = data.class_balanced(np.array([0, 0, 0, 0, 0, 0, 0, 1]))
    >>> rows = sampler(jax.random.key(0), 0, 8, 1000)
    >>> int((rows == 7).sum())
    480
    """
    classes = np.asarray(labels)
    if classes.ndim != 1 or classes.size == 0:
        raise ValueError(f"class_balanced: labels must be (n,), one for each row, got {classes.shape}")
    _, numbers, counts = np.unique(classes, return_inverse=True, return_counts=True)
    order = np.argsort(numbers, kind="stable").astype(np.int32)
    starts = (np.cumsum(counts) - counts).astype(np.int32)

    def sampler(key: Key, step: Array, n: Array | int, batch_size: int) -> Array:
        if checks.is_traced(n) or int(n) != len(classes):
            got = "folds" if checks.is_traced(n) else f"{int(n)} rows"
            raise ValueError(
                f"class_balanced: got {len(classes)} labels, but the data are {got}; pass the labels of the data"
            )
        class_key, row_key = jax.random.split(jax.random.fold_in(key, step))
        sampled = jax.random.randint(class_key, (batch_size,), 0, len(counts))
        place = jax.random.randint(row_key, (batch_size,), 0, jnp.asarray(counts.astype(np.int32))[sampled])
        return jnp.asarray(order)[jnp.asarray(starts)[sampled] + place]

    return sampler
