"""Leave out elements at some steps, such as those at which an optimizer overflows or divides by zero."""

import numpy as np

from nnjax.optcheck.reading.terms import Leaf

LARGEST = 1e100  # larger values overflow when they are squared twice


def with_finite_values(leaf: Leaf) -> Leaf:
    """Return the leaf with zeros for all arrays of an element, at steps at which one of them is not finite."""
    arrays = (leaf.updates, *leaf.before.values(), *leaf.after.values())
    finite = np.all([np.abs(array) < LARGEST for array in arrays], axis=0)
    return leaf if finite.all() else leaf_without(leaf, ~finite)


def leaf_without(leaf: Leaf, left_out: np.ndarray) -> Leaf:
    """Return the leaf with zeros for all arrays of some elements at some steps.

    Zeros satisfy every equation without a constant, and the constant term is 0 where θ is 0.

    Args:
      leaf: the arrays.
      left_out: (steps, elements), True for the elements to leave out.
    """

    def masked(array: np.ndarray) -> np.ndarray:
        return np.where(left_out, 0.0, array)

    return leaf._replace(
        grads=masked(leaf.grads),
        params=masked(leaf.params),
        updates=masked(leaf.updates),
        rounding=masked(leaf.rounding),
        before={name: masked(array) for name, array in leaf.before.items()},
        after={name: masked(array) for name, array in leaf.after.items()},
    )
