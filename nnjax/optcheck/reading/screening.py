"""Find sets of terms that may add up to an array, from its largest elements at one step, without solving each."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

LEAST_ROWS = 16
SMALL = 0.02  # elements with a smaller share of the largest value are not used, if there are enough others
NEAR = 1e-11  # largest squared distance of y from the span of the terms, relative to y²
UNSURE = 1e-14  # its rounding error, times the squared sine of the angle between two terms
FAR = 3e-6  # largest error of an element, relative to the sizes of its terms
ZERO = 1e-13  # smallest share of a term that is not in the span of others
BATCH = 256  # sets that are solved at once


def likely_sets(
    y: np.ndarray,
    terms: np.ndarray,
    always: Sequence[np.ndarray],
    order: np.ndarray,
    rounding: np.ndarray,
    size: int,
) -> Iterator[tuple[int, ...]]:
    """Yield the sets of indices of terms, of the given size, of which y may be a sum.

    Args:
      y: the values (elements,).
      terms: the terms (terms, elements).
      always: terms that belong to every set.
      order: the elements with the largest values of this are used.
      rounding: how much rounding may change each y.
      size: the number of terms of a set.
    """
    finite = np.isfinite(y) & np.isfinite(rounding) & (y != 0) & (rounding <= FAR * np.abs(y))
    rows = np.flatnonzero(finite)
    rows = rows[np.argsort(-order[rows], kind="stable")]
    large = int((order[rows] >= SMALL * order[rows].max(initial=0)).sum())
    rows = rows[: max(LEAST_ROWS, large)]
    count = len(terms)
    if len(rows) <= size + len(always):
        yield from itertools.combinations(range(count), size)
        return
    scale = np.abs(y[rows])
    x, fixed = terms[:, rows] / scale, np.array([term[rows] for term in always]).reshape(len(always), len(rows)) / scale
    target = y[rows] / scale
    usable = np.isfinite(x).all(1) & x.any(1)
    indices = np.flatnonzero(usable)
    near, rest = target / np.sqrt(len(rows)), _unit(x[indices])
    basis = fixed
    while len(basis):
        term, basis = _unit(basis[:1])[0], basis[1:]
        basis, rest = _without(basis, term), _unit(_without(rest, term))
        near = near - (near @ term) * term
    sets = (tuple(indices[list(chosen)]) for chosen in _near(near, rest, size))
    while batch := list(itertools.islice(sets, BATCH)):
        yield from itertools.compress(batch, _exact(target, x[np.array(batch)], fixed))


def _near(y: np.ndarray, terms: np.ndarray, size: int) -> Iterator[tuple[int, ...]]:
    """Yield the sets of unit vectors whose span nearly contains y."""
    if size == 1:
        distance = y - (terms @ y)[:, None] * terms
        yield from ((int(i),) for i in np.flatnonzero((distance**2).sum(1) <= NEAR))
    elif size == 2 and len(terms) > 1:
        a, cosines = terms @ y, terms @ terms.T
        sines = np.maximum(1 - cosines**2, 1e-300)
        distance = y @ y - (a[:, None] ** 2 + a**2 - 2 * cosines * a[:, None] * a) / sines
        yield from zip(*map(list, np.nonzero(np.triu(distance <= NEAR + UNSURE / sines, 1))), strict=True)
    else:
        for i, term in enumerate(terms):
            others = _unit(_without(terms[i + 1 :], term))
            rest = y - (y @ term) * term
            yield from ((i, *(i + 1 + j for j in chosen)) for chosen in _near(rest, others, size - 1))


def _without(terms: np.ndarray, term: np.ndarray) -> np.ndarray:
    """Return terms without their component along a unit vector; 0 for those that are multiples of it."""
    rest = terms - (terms @ term)[:, None] * term
    rest -= (rest @ term)[:, None] * term
    return np.where((rest**2).sum(1, keepdims=True) > ZERO**2, rest, 0.0)


def _unit(terms: np.ndarray) -> np.ndarray:
    """Return the terms divided by their norms."""
    norms = np.sqrt((terms**2).sum(1, keepdims=True))
    return terms / np.where(norms > 0, norms, 1.0)


def _exact(y: np.ndarray, terms: np.ndarray, always: np.ndarray) -> np.ndarray:
    """Return for sets of terms (sets, terms, elements) whether y is a sum of them, by least squares."""
    every = np.concatenate([terms, np.broadcast_to(always, (len(terms), *always.shape))], axis=1)
    norms = np.sqrt((every**2).sum(2, keepdims=True))
    matrix = np.swapaxes(every / np.where(norms > 0, norms, 1.0), 1, 2)
    solution = np.linalg.pinv(matrix, rcond=1e-13) @ y[:, None]
    error = np.abs((matrix @ solution)[..., 0] - y)
    size = (np.abs(matrix) @ np.abs(solution))[..., 0]
    return (error <= FAR * np.maximum(size, 1)).all(1)
