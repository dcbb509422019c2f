"""Find values that are clipped, or the hyperbolic tangent of a sum, from the elements that reach the bound.

If y = clip(x, ±c) or y = c tanh(x), many elements have the same size c. In an update, weight decay may follow:
y = c f(x) - w θ. With c and w known, the other elements tell x, whose equation is then read as usual.
"""

from collections.abc import Iterator

import numpy as np

from nnjax.optcheck.reading.finite_values import leaf_without
from nnjax.optcheck.reading.linear_equations import Equation
from nnjax.optcheck.reading.terms import CLIP, TANH, Leaf, Outer

LEAST = 8  # smallest number of elements of the same size
SAME = 1e-9  # largest relative difference of equal sizes
STEEP = 0.99  # larger values of tanh are not inverted, because rounding would grow
BATCH = 1000  # pairs of elements that are compared at once
PAIR = 1e-11  # largest relative difference of sizes with the decay that follows from a pair
SCATTER = 1e-7  # smallest difference of two parameters from which a weight decay follows
SMALL = 1e-3  # sizes with a smaller share of the largest update are those of decay alone
STEPS = (8, 3, 5, 14, 20)  # the steps that are tried


def inner_leaves(leaf: Leaf, name: str | None) -> Iterator[tuple[Outer, Leaf]]:
    """Yield functions of which an array may be the value, and the leaf with the argument of the function instead.

    Args:
      leaf: the arrays.
      name: the stored array; None for the update.
    """
    y = leaf.updates if name is None else leaf.after[name]
    rounding = leaf.rounding if name is None else 0.0 * y
    bounds = [_common_size(y, rounding)]
    bounds += [_common_size_with_decay(leaf)] if name is None and bounds[0] is None else []
    for bound in bounds:
        if bound is not None:
            scale, decay = bound
            values = y + decay * leaf.params
            if decay:  # the rest of an update that consists of decay is rounding
                values = np.where(np.abs(values) <= rounding, 0.0, values)
            shares = np.abs(values) / scale
            yield Outer(CLIP, scale, decay), _with_values(leaf_without(leaf, shares >= 1 - SAME), name, values)
            if name is None:
                steep = shares >= STEEP
                inverse = np.arctanh(np.where(steep, 0.0, values / scale))
                rounding = leaf.rounding / scale / (1 - STEEP**2)
                masked = leaf_without(leaf._replace(rounding=rounding), steep)
                yield Outer(TANH, scale, decay), _with_values(masked, name, inverse)


def _with_values(leaf: Leaf, name: str | None, values: np.ndarray) -> Leaf:
    """Return the leaf with other values of an array or of the update, except for elements that are left out."""
    values = np.where(leaf.params == 0, 0.0, values)
    return leaf._replace(updates=values) if name is None else leaf._replace(after=leaf.after | {name: values})


def _common_size(y: np.ndarray, rounding: np.ndarray) -> tuple[float, float] | None:
    """Return the largest size of all elements if many elements have it, at several steps."""
    size = np.abs(y).max()
    if not np.isfinite(size) or size == 0:
        return None
    reached = np.abs(y) >= size - SAME * size - 2 * rounding
    rounded = float(f"{np.median(np.abs(y[reached])):.6g}")
    enough = reached.sum() >= LEAST and (reached.any(1).sum() > 1) and not reached.all(1).any()
    return (rounded, 0.0) if enough and abs(rounded - size) <= SAME * size + 2 * rounding.max() else None


def _common_size_with_decay(leaf: Leaf) -> tuple[float, float] | None:
    """Return c and w if |u + w θ| has the same size c for many elements at one step.

    Each pair of elements implies a c and a w for equal signs, and for different signs.
    """
    found = (_at_step(leaf, step) for step in STEPS if step < len(leaf.updates))
    return next((some for some in found if some is not None), None)


def _at_step(leaf: Leaf, step: int) -> tuple[float, float] | None:
    """Return c and w that follow from the elements of one step, or None."""
    u, p, rounding = leaf.updates[step], leaf.params[step], leaf.rounding[step]
    used = np.flatnonzero((p != 0) & (u != 0))
    if len(used) <= LEAST:
        return None
    u, p, rounding = u[used], p[used], rounding[used]
    i, j = np.triu_indices(len(used), 1)
    most, best = 0, (0.0, 0.0)
    for sign in (1.0, -1.0):
        # u_i + w p_i = c and u_j + w p_j = ±c
        with np.errstate(all="ignore"):
            w = (sign * u[j] - u[i]) / (p[i] - sign * p[j])
        c = np.abs(u[i] + w * p[i])
        certain = np.isfinite(w) & (np.abs(p[i] - sign * p[j]) > SCATTER) & (c > SMALL * np.abs(u).max())
        for pairs in np.array_split(np.flatnonzero(certain), 1 + certain.sum() // BATCH):
            sizes = np.abs(u + w[pairs, None] * p)
            near = np.abs(sizes - c[pairs, None]) <= PAIR * c[pairs, None] + 20 * rounding
            counts = near.sum(1)
            if counts.size and counts.max() > most:
                best_pair = counts.argmax()
                most, best = int(counts[best_pair]), _refined(u, p, near[best_pair], w[pairs[best_pair]])
    c, w = (float(f"{value:.5g}") for value in best)
    return (c, w) if most >= LEAST and c > 0 and w != 0 else None


def _refined(u: np.ndarray, p: np.ndarray, near: np.ndarray, w: float) -> tuple[float, float]:
    """Return c and w by least squares from the elements whose sizes are nearly equal."""
    signs = np.sign(u[near] + w * p[near])
    (c, decay), *_ = np.linalg.lstsq(np.stack([signs, -p[near]], axis=1), u[near], rcond=None)
    return float(c), float(decay)


def with_outer(equation: Equation, outer: Outer) -> Equation:
    """Return the equation of a sum as that of a function of the sum."""
    return equation._replace(terms=equation.terms._replace(outer=outer))
