"""Leave out elements at steps at which an optimizer overflows or divides by zero."""

import numpy as np

from nnjax.optcheck.reading.terms import Leaf

LARGEST = 1e100  # larger values overflow when they are squared twice


def with_finite_values(leaf: Leaf) -> Leaf:
    """Return the leaf with zeros for all arrays of an element, at steps at which one of them is not finite.

    Zeros satisfy every equation without a constant, and the constant term is 0 where θ is 0.
    """
    arrays = (leaf.updates, *leaf.before.values(), *leaf.after.values())
    finite = np.all([np.abs(array) < LARGEST for array in arrays], axis=0)
    if finite.all():
        return leaf

    def masked(array: np.ndarray) -> np.ndarray:
        return np.where(finite, array, 0.0)

    return leaf._replace(
        grads=masked(leaf.grads),
        params=masked(leaf.params),
        updates=masked(leaf.updates),
        rounding=masked(leaf.rounding),
        before={name: masked(array) for name, array in leaf.before.items()},
        after={name: masked(array) for name, array in leaf.after.items()},
    )
