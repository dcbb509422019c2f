"""Check whether a formula produces recorded updates, and fit the hyper-parameters of a rule to them."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nnjax.optcheck.rules.families import (
    clips_by_tree,
    hyper_names,
    is_by_leaf,
    is_by_tree,
    is_costly,
    update_array,
    updates,
)
from nnjax.optcheck.rules.named.sophia import SophiaRule
from nnjax.optcheck.rules.rule_updates import roundings
from nnjax.optcheck.rules.update_rule import Formula, Inputs
from nnjax.optcheck.trace.tolerance import within

LEAVES = 5  # one leaf of this many is checked first if the rule couples the elements of a leaf
SAMPLE = 48  # number of elements that are checked first and used for fits
DECAY_RATES = ("b1", "b2", "b3", "momentum", "dampening")  # hyper-parameters between 0 and 1
USUAL_VALUES: dict[str, tuple[float, ...]] = {
    "b1": (0.8, 0.95),
    "b2": (0.9, 0.95, 0.98, 0.99, 0.999),
    "eps": (1e-16, 1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-3),
    "momentum": (0.5, 0.9, 0.99),
    "b3": (0.8, 0.9, 0.95, 0.999),
}
ADDED: dict[str, tuple[float, ...]] = {  # hyper-parameters that a choice adds; tried only if no others are fitted
    "clip": (1e-3, 0.01, 0.05, 0.1, 0.3, 0.5, 1.0, 3.0, 10.0, 100.0),
    "rate_decay": (1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.9),
    "period": (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20),
}
# values to try if the step is a sign, because the gradient of a sign is 0 and cannot guide a fit
SIGN_VALUES: dict[str, tuple[float, ...]] = dict.fromkeys(
    ("b1", "b2"), (1e-3, 0.01, 0.1, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
)


class Target(NamedTuple):
    """Recorded updates that a formula must reproduce."""

    updates: np.ndarray  # (steps, elements)
    bound: np.ndarray  # (steps, elements), the largest difference that rounding explains
    inputs: Inputs

    def select(self, elements: np.ndarray) -> "Target":
        """Return the target restricted to some elements."""
        inputs = self.inputs._replace(
            grads=self.inputs.grads[:, elements],
            params=self.inputs.params[:, elements],
            leaf=self.inputs.leaf[elements],
            row=self.inputs.row[elements],
        )
        return Target(self.updates[:, elements], self.bound[:, elements], inputs)

    def first_steps(self, steps: int) -> "Target":
        """Return the target restricted to its first steps."""
        grads, params, rates = (array[:steps] for array in self.inputs[:3])
        norms = None if self.inputs.norms is None else self.inputs.norms[:steps]
        inputs = self.inputs._replace(grads=grads, params=params, rates=rates, norms=norms)
        return Target(self.updates[:steps], self.bound[:steps], inputs)


class Fit(NamedTuple):
    """A formula and half the sum of its squared residuals."""

    formula: Formula
    cost: float


def sample(rule: Any, target: Target) -> Target:
    """Return the target restricted to a sample of its elements, or of its leaves if the rule couples their elements.

    Return the whole target if the rule couples leaves.
    """
    if is_by_tree(rule):
        return target
    if is_by_leaf(rule) and not is_costly(rule):
        leaves = np.unique(target.inputs.leaf)[::LEAVES]
        return target.select(np.flatnonzero(np.isin(target.inputs.leaf, leaves)))
    return target if is_by_leaf(rule) else target.select(sample_of(target))


def sample_of(target: Target) -> np.ndarray:
    """Return the indices of a sample of the elements, spread over all leaves."""
    return np.unique(np.linspace(0, target.updates.shape[1] - 1, SAMPLE).astype(int))


def fit_sample(rule: Any, target: Target, *, rough: bool = False) -> Target:
    """Return the target for fits: one leaf of each shape if the rule is costly and works by leaf, else see `sample`.

    For rough fits of other rules that work by leaf, return one leaf. If the rule only clips gradients by their global
    norm, return a sample with this norm.
    """
    leaf, shapes = target.inputs.leaf, target.inputs.shapes
    if clips_by_tree(rule) and target.inputs.norms is None:
        norms = np.sqrt((target.inputs.grads**2).sum(1))
        target = target.select(sample_of(target))
        return target._replace(inputs=target.inputs._replace(norms=norms))
    if rough and is_by_leaf(rule) and not is_by_tree(rule) and not is_costly(rule):
        return target.select(np.flatnonzero(leaf == leaf[0]))
    if not is_costly(rule) or is_by_tree(rule):
        return sample(rule, target)
    first = {shapes[i] if shapes else i: i for i in np.unique(leaf)[::-1]}
    return target.select(np.flatnonzero(np.isin(leaf, list(first.values()))))


def reproduces(formula: Formula, target: Target) -> bool:
    """Return True if the formula reproduces the updates up to rounding, at every step and element."""
    small = sample(formula.rule, target)
    return any(
        _all_within(rounded, small) and (small is target or _all_within(rounded, target))
        for rounded in roundings(formula)
    )


def _all_within(formula: Formula, target: Target) -> bool:
    with np.errstate(all="ignore"):
        steps = zip(updates(formula, target.inputs), target.updates, target.bound, strict=True)
        return all(within(*step).all() for step in steps)


def share_within(formula: Formula, target: Target) -> float:
    """Return the share of the updates that the formula reproduces up to rounding."""
    return float(within(update_array(formula, target.inputs), target.updates, target.bound).mean())


def largest_error(formula: Formula, target: Target) -> float:
    """Return the largest relative difference from the updates, ignoring elements in which rounding dominates."""
    return min(_largest_error(update_array(rounded, target.inputs), target) for rounded in roundings(formula))


def _largest_error(values: np.ndarray, target: Target) -> float:
    with np.errstate(all="ignore"):
        largest = np.maximum(np.abs(values), np.abs(target.updates))
        precise = target.bound < 1e-6 * largest
        relative = np.where(precise & (values != target.updates), np.abs(values - target.updates) / largest, 0.0)
    return float(np.nan_to_num(relative, nan=np.inf).max(initial=0.0))


def fit_roughly(formula: Formula, target: Target, names: Sequence[str] | None = None) -> Fit:
    """Fit a rule to 12 steps with few evaluations (10 ms instead of 100 ms), to decide whether `fit` is worthwhile."""
    target = fit_sample(formula.rule, target.first_steps(12), rough=True)
    names = free_names(formula) if names is None else names
    if is_costly(formula.rule):
        scaled = fit_learning_rate(formula, target)
        return Fit(scaled, float((_residuals(_updates_by_setting(scaled, target), target) ** 2).sum()) / 2)
    return _least_squares(_nearest_usual(formula, target, names), target, names, evaluations=8)


def fit(formula: Formula, target: Target, names: Sequence[str] | None = None) -> Formula:
    """Return the formula with hyper-parameters that are fitted by least squares on the relative differences.

    Args:
      formula: the rule and the initial hyper-parameters.
      target: the updates to reproduce.
      names: the hyper-parameters to fit; None means all that `free_names` returns.
    """
    target, names = fit_sample(formula.rule, target), free_names(formula) if names is None else names
    costly = is_costly(formula.rule)
    best = _least_squares(formula, target, names, evaluations=40 if costly else 60)
    if best.cost >= 1e-12 and not costly:
        start = _nearest_usual(formula, target, names)
        best = min(best, _least_squares(start, target, names, evaluations=60), key=lambda result: result.cost)
    return best.formula


def fit_learning_rate(formula: Formula, target: Target) -> Formula:
    """Scale the learning rate of a formula so that the median ratio of the target's updates to the formula's is 1."""
    target = sample(formula.rule, target)
    factor = _median_ratios(_updates_by_setting(formula, target), target)[0]
    return _with(formula, {"learning_rate": shorten(float(formula.hyper.learning_rate * factor))})


def free_names(formula: Formula) -> list[str]:
    """Return the names of the hyper-parameters to fit: those in the rule that are neither 0 nor redundant."""
    names = [name for name in hyper_names(formula.rule) if getattr(formula.hyper, name) != 0]
    # Sophia's clipping bound is redundant: changes of λ, γ, ε and w have the same effect
    return [name for name in names if name != "clip" or not isinstance(formula.rule, SophiaRule)]


def _least_squares(start: Formula, target: Target, names: Sequence[str], *, evaluations: int) -> Fit:
    from scipy.optimize import least_squares

    fixed = {"period", *(SIGN_VALUES if getattr(start.rule, "sign", "none") == "sign" else ())}  # without a gradient
    names = [name for name in names if name not in fixed]
    n = len(names)
    initial = _residuals(_updates_by_setting(start, target), target)
    if n == 0 or initial.size < n:
        return Fit(start, float((initial**2).sum()) / 2)
    steps = 1e-6 * np.concatenate([np.zeros((1, n)), np.eye(n), -np.eye(n)])

    def evaluate(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the residuals and their Jacobian from one evaluation, because ten settings take as long as one."""
        points = point + steps
        settings = {name: _from_line(name, points[:, i : i + 1]) for i, name in enumerate(names)}
        residuals = _residuals(_updates_by_setting(_with(start, settings), target), target)
        return residuals[0], (residuals[1 : n + 1] - residuals[n + 1 :]).T / 2e-6

    latest: list[Any] = [None, None]

    def residuals(point: np.ndarray) -> Any:
        latest[:] = point.copy(), evaluate(point)
        return latest[1][0]

    def slopes(point: np.ndarray) -> Any:
        return (latest[1] if np.array_equal(latest[0], point) else evaluate(point))[1]

    point = np.array([_to_line(name, float(getattr(start.hyper, name))) for name in names])
    result = least_squares(
        residuals, point, jac=slopes, method="lm", ftol=1e-4, xtol=1e-15, gtol=1e-15, max_nfev=evaluations
    )  # method="lm" uses no BLAS, whose threads cost more than they save here
    values = {name: shorten(float(_from_line(name, result.x[i]))) for i, name in enumerate(names)}
    return Fit(_with(start, values), float(result.cost))


def _nearest_usual(formula: Formula, target: Target, names: Sequence[str]) -> Formula:
    """Return the formula with the best usual values. A fit that starts far away could end in a poor local minimum."""
    usual = SIGN_VALUES if getattr(formula.rule, "sign", "none") == "sign" else USUAL_VALUES
    if set(names) <= {"learning_rate", *ADDED}:  # with more names, the grid would be too large
        usual = usual | ADDED
    grid = {name: (float(getattr(formula.hyper, name)), *usual[name]) for name in names if name in usual}
    settings = np.array(list(itertools.product(*grid.values())))
    values = _updates_by_setting(_with(formula, {n: settings[:, i : i + 1] for i, n in enumerate(grid)}), target)
    if "learning_rate" in names:
        values = values * _median_ratios(values, target)[:, None, None]
    best = int((_residuals(values, target) ** 2).sum(1).argmin())
    formula = _with(formula, {name: float(settings[best, i]) for i, name in enumerate(grid)})
    return fit_learning_rate(formula, target) if "learning_rate" in names else formula


def _with(formula: Formula, values: dict[str, Any]) -> Formula:
    return formula._replace(hyper=formula.hyper._replace(**values))


def _updates_by_setting(formula: Formula, target: Target) -> np.ndarray:
    """Return the updates as an array (settings, steps, elements)."""
    values = update_array(formula, target.inputs)
    return values[None] if values.ndim == 2 else values.swapaxes(0, 1)


def _residuals(values: np.ndarray, target: Target) -> np.ndarray:
    """Return relative differences from the target, squashed to (-1, 1), as an array (settings, residuals)."""
    largest_so_far = np.maximum.accumulate(np.abs(target.updates), axis=0)
    scale = np.maximum(np.abs(target.updates), 1e-3 * largest_so_far)
    valid = np.isfinite(target.updates) & (scale > 0)
    with np.errstate(all="ignore"):
        relative = ((values - target.updates) / scale)[:, valid]
    return np.tanh(np.nan_to_num(relative, nan=1e3, posinf=1e3, neginf=-1e3))


def _median_ratios(values: np.ndarray, target: Target) -> np.ndarray:
    """Return the median of |target's updates / values| for each setting, or 1 if no ratio is finite and positive."""
    with np.errstate(all="ignore"):
        ratios = np.abs(target.updates / values).reshape(len(values), -1)
    finite = [row[np.isfinite(row) & (row > 0)] for row in ratios]
    return np.array([np.median(row) if row.size else 1.0 for row in finite])


def _to_line(name: str, value: float) -> float:
    """Map a hyper-parameter to the real line, with the logit for decay rates and the logarithm for all others."""
    if name in DECAY_RATES:
        value = min(max(value, 1e-12), 1 - 1e-12)
        return float(np.log(value / (1 - value)))
    return float(np.log(max(value, 1e-300)))


def _from_line(name: str, point: np.ndarray) -> np.ndarray:
    """Invert `_to_line`."""
    if name in DECAY_RATES:
        return 1 / (1 + np.exp(np.clip(-point, -30, 30)))
    return np.exp(np.clip(point, -200, 200))


def shorten(value: float) -> float:
    """Round a fitted number to the fewest digits, at most 6, within the error of the fit.

    The error is 1e-7 of the number, or of 1 minus a number above ½. Small numbers are fitted less exactly, so those
    close to a number with one or two digits, as most hyper-parameters have, are rounded by up to 1e-4 of themselves.
    """
    for digits in range(1, 7):
        short = float(f"{value:.{digits}g}")
        error = 1e-7 * abs(value) if digits > 2 or abs(value) > 1 else min(1e-7, 1e-4 * abs(value))
        if abs(short - value) <= error:
            return short
    for digits in range(1, 7 if 0.5 < value < 1 else 1):
        if abs((short := 1 - float(f"{1 - value:.{digits}g}")) - value) <= 1e-7 * abs(1 - value):
            return float(f"{short:.12g}")
    return value
