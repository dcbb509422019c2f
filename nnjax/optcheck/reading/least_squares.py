"""Find the coefficients of an equation at each step by least squares, weighted so that each element counts equally."""

import numpy as np

from nnjax.optcheck.reading.terms import EPS, Terms

EXACT = 2e-9  # largest error of an equation relative to the sum of the sizes of its terms
PRECISION = 1e-12  # relative error of a term; elements with more rounding are weighted less
UNSEEN = 1e-9  # largest share of a term at a step at which its coefficient is not determined
SINGULAR = 1e-10  # smallest ratio of singular values at which coefficients are determined
ROUNDS = 5  # number of times the weights are computed
FEW_ROUNDS = 2  # the same if the coefficients are improved later


def exact_coefficients(attempt: Terms) -> np.ndarray | None:
    """Return the coefficients (steps, terms), or None if an element is not exact.

    They are ∞ at steps at which no coefficient is determined, and NaN if the term is too small.
    """
    exact, solution, rows, size = _exact(attempt)
    if not exact.all():
        return None
    terms = _system(attempt)[1]
    # terms may be proportional to each other, as the first moment and the gradient at the first step, or too small
    spread = np.linalg.svd(rows, compute_uv=False) if len(rows) else np.ones((0, 1))
    unseen = (np.abs(terms * solution[:, None, :]) <= UNSEEN * size[..., None]).all(1)
    rank = (spread >= SINGULAR * spread.max(1, keepdims=True)).sum(1)
    singular = rank < (terms != 0).any(1).sum(1)
    # at steps without an update, the coefficients of all terms that are seen there are 0
    nothing = (attempt.y == 0).all(1)[:, None] & (terms != 0).any(1)
    return np.where(nothing, 0.0, np.where(singular[:, None], np.inf, np.where(unseen, np.nan, solution)))


def determined(attempt: Terms) -> np.ndarray:
    """Return for each step whether least squares determine all coefficients."""
    rows = _weighted(*_system(attempt), np.ones_like(attempt.y))[1]
    spread = np.linalg.svd(rows, compute_uv=False)
    return spread.min(1) >= SINGULAR * spread.max(1)


def exact_steps(attempt: Terms) -> np.ndarray:
    """Return for each step whether all elements are exact."""
    return _exact(attempt)[0]


def _exact(attempt: Terms) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return for each step whether all elements are exact, the coefficients, the weighted terms, and the sizes."""
    y, terms, rounding, d, main = _system(attempt)
    used = np.ones_like(y) if main.all() else d >= np.median(d, axis=1, keepdims=True)
    solution, rows, size, bound = _weighted(y, terms, rounding, d, main, used)
    error = np.abs((terms * solution[:, None, :]).sum(-1) - y)
    return (error <= EXACT * np.maximum(size, np.abs(y)) + bound).all(1), solution, rows, size


def best_coefficients(attempt: Terms, used: np.ndarray, always: bool = False) -> np.ndarray:
    """Return the coefficients (steps, terms), first (or always) from some elements, even if others are not exact."""
    return _weighted(*_system(attempt), used, always=always, rounds=FEW_ROUNDS)[0]


def _system(attempt: Terms) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return y, the terms, the rounding, D, and which terms do not contain ε."""
    y, terms = attempt.y, np.stack(list(attempt.values.values()), axis=-1)
    rounding, d = (np.broadcast_to(array, y.shape) for array in (attempt.rounding, attempt.d))
    main = np.array([EPS not in term for term in attempt.values])
    return y, terms, rounding, d, main


def _weighted(
    y: np.ndarray,
    terms: np.ndarray,
    rounding: np.ndarray,
    d: np.ndarray,
    main: np.ndarray,
    used: np.ndarray,
    *,
    always: bool = False,
    rounds: int = ROUNDS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Solve y = terms · coefficients; return them, the weighted terms, the sizes and the rounding of elements.

    Elements are weighted by the sum of the sizes of their terms. At first this sum is estimated from the median ratio
    of each term to y, and only the elements in `used` count.
    """
    first = used
    ratios = np.abs(terms) / np.abs(y)[..., None]
    ratios = np.sort(np.where(np.isfinite(ratios) & (ratios > 0), ratios, np.inf), axis=1)
    middle = np.isfinite(ratios).sum(1, keepdims=True) // 2
    typical = np.take_along_axis(ratios, np.minimum(middle, ratios.shape[1] - 1), 1)
    typical = np.where(np.isfinite(typical), typical, 1.0)
    sizes = np.abs(terms) / typical
    size = np.where((sizes[..., main] > 0).any(-1), sizes[..., main].max(-1), sizes.max(-1))
    bound = rounding
    for _ in range(rounds):
        scale = np.maximum(np.maximum(np.abs(y), size), np.maximum(bound / PRECISION, 1e-300))
        rows, wanted = _finite(used[..., None] * terms / scale[..., None]), _finite(used * y / scale)
        norms = np.sqrt((rows**2).sum(1))
        norms = np.where((norms > 0) & np.isfinite(norms), norms, 1.0)
        rows = rows / norms[:, None]
        solution = (np.linalg.pinv(rows, rcond=1e-13) @ wanted[..., None])[..., 0] / norms
        size = (np.abs(terms) * np.abs(solution)[:, None, :]).sum(-1)
        eps = np.abs(solution[:, None, ~main]).sum(-1)
        bound, used = rounding * (1 + eps / np.where(d > 0, d, np.inf)), first if always else np.ones_like(y)
    return solution, rows, size, bound


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, 0.0)
