"""Does a form make these updates, and with which hyper-parameters would it?"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nnjax.optcheck.axes import used
from nnjax.optcheck.form import Form, Hyper, Seen, updates

COARSE = 48  # elements looked at first
SIGNED = ("b1", "b2")  # have no slope where only the sign of a step is taken


class Target(NamedTuple):
    """Updates to be explained."""

    updates: np.ndarray  # (steps, elements)
    allowed: np.ndarray  # (steps, elements), the difference that rounding may make
    seen: Seen

    def part(self, elements: np.ndarray) -> "Target":
        """Some elements of it."""
        seen = self.seen._replace(
            grads=self.seen.grads[:, elements], params=self.seen.params[:, elements], leaf=self.seen.leaf[elements]
        )
        return Target(self.updates[:, elements], self.allowed[:, elements], seen)

    def beginning(self, steps: int) -> "Target":
        """The first steps of it."""
        seen = self.seen._replace(
            grads=self.seen.grads[:steps], params=self.seen.params[:steps], rates=self.seen.rates[:steps]
        )
        return Target(self.updates[:steps], self.allowed[:steps], seen)


class Fit(NamedTuple):
    """Hyper-parameters, and how near the updates they come: half the sum of squares, 0 at best."""

    hyper: Hyper
    cost: float


def coarse(target: Target, n: int = COARSE) -> np.ndarray:
    """Elements spread over all: the script has its patterns and magnitudes in a random order."""
    return np.unique(np.linspace(0, target.updates.shape[1] - 1, n).astype(int))


def needs_all(form: Form) -> bool:
    """Whether an element's update depends on other elements."""
    return form.trust != "none" or "norm" in form.clip


def reproduces(form: Form, hyper: Hyper, target: Target) -> bool:
    """Whether the form makes the updates, within rounding at every step and element."""
    if needs_all(form):
        return _all_within(form, hyper, target)
    return _all_within(form, hyper, target.part(coarse(target))) and _all_within(form, hyper, target)


def _all_within(form: Form, hyper: Hyper, target: Target) -> bool:
    with np.errstate(all="ignore"):
        for made, wanted, allowed in zip(
            updates(form, hyper, target.seen), target.updates, target.allowed, strict=True
        ):
            same = (np.abs(made - wanted) <= allowed) | (made == wanted) | (np.isnan(made) & np.isnan(wanted))
            if not same.all():
                return False
    return True


def error(form: Form, hyper: Hyper, target: Target) -> float:
    """The largest difference relative to the larger of the two updates, of those that rounding does not blur."""
    with np.errstate(all="ignore"):
        made = np.stack(list(updates(form, hyper, target.seen)))
        largest = np.maximum(np.abs(made), np.abs(target.updates))
        sharp = target.allowed < 1e-6 * largest
        relative = np.where(sharp & (made != target.updates), np.abs(made - target.updates) / largest, 0.0)
    return float(np.nan_to_num(relative, nan=np.inf).max(initial=0.0))


def roughly(form: Form, hyper: Hyper, target: Target, names: Sequence[str]) -> Fit:
    """As `refit`, but only to see whether that is worth while: 12 steps, few evaluations. Takes 10 ms, not 150."""
    target = target.beginning(12) if needs_all(form) else target.beginning(12).part(coarse(target))
    return _from(_starts(form, hyper, target, names)[0], form, target, names, evaluations=8)


def refit(form: Form, hyper: Hyper, target: Target, names: Sequence[str]) -> Fit:
    """The hyper-parameters, those named fitted by least squares of the relative differences, the others as they are.

    Args:
      form: the rule.
      hyper: where to begin.
      target: the updates.
      names: of the hyper-parameters to fit.
    """
    target = target if needs_all(form) else target.part(coarse(target))
    best = Fit(hyper, np.inf)
    for start in _starts(form, hyper, target, names):
        fit = _from(start, form, target, names, evaluations=60)
        best = fit if fit.cost < best.cost else best
        if best.cost < 1e-12:
            break
    return best


def _starts(form: Form, hyper: Hyper, target: Target, names: Sequence[str]) -> list[Hyper]:
    """Where to begin, the most promising first."""
    starts = [hyper]
    if "learning_rate" in names:
        starts.insert(0, hyper._replace(learning_rate=rate_of(form, hyper, target)))
    moments = [name for name in names if name in SIGNED]
    return [_best_of(form, starts[0], target, moments)] if form.sign == "sign" else starts


def _from(start: Hyper, form: Form, target: Target, names: Sequence[str], *, evaluations: int) -> Fit:
    from scipy.optimize import least_squares

    names = [name for name in names if form.sign == "none" or name not in SIGNED]
    top = np.maximum.accumulate(np.abs(target.updates), axis=0)
    wanted, scale = target.updates, np.maximum(np.abs(target.updates), 1e-3 * top)
    known = np.isfinite(wanted) & (scale > 0)
    if not known.any() or not names:
        return Fit(start, 0.0)
    step = 1e-6 * np.concatenate([0 * np.eye(len(names))[:1], np.eye(len(names)), -np.eye(len(names))])

    def evaluated(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals and their slopes, in one go: a form takes as long for one setting as for ten."""
        points = point + step
        values = {name: _from_line(name, points[:, i : i + 1]) for i, name in enumerate(names)}
        with np.errstate(all="ignore"):
            made = np.stack(list(updates(form, start._replace(**values), target.seen)), axis=1)
            relative = ((made - wanted) / scale)[:, known]
        at = np.tanh(np.nan_to_num(relative, nan=1e3, posinf=1e3, neginf=-1e3))
        up, down = at[1 : len(names) + 1], at[len(names) + 1 :]
        return at[0], (up - down).T / 2e-6

    latest: list[Any] = [None, None]

    def residuals(point: np.ndarray) -> Any:
        latest[:] = point.copy(), evaluated(point)
        return latest[1][0]

    def slopes(point: np.ndarray) -> Any:
        return (latest[1] if np.array_equal(latest[0], point) else evaluated(point))[1]

    point = np.array([_to_line(name, float(getattr(start, name))) for name in names])
    found = least_squares(residuals, point, jac=slopes, ftol=1e-15, xtol=1e-15, gtol=1e-15, max_nfev=evaluations)
    fitted = {name: float(_from_line(name, found.x[i])) for i, name in enumerate(names)}
    return Fit(start._replace(**{name: _rounded(value) for name, value in fitted.items()}), float(found.cost))


def rate_of(form: Form, hyper: Hyper, target: Target) -> float:
    """The learning rate that scales the form's updates to those wanted, in the median."""
    target = target if needs_all(form) else target.part(coarse(target))
    with np.errstate(all="ignore"):
        ratio = np.abs(target.updates / np.stack(list(updates(form, hyper, target.seen))))
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    return _rounded(float(hyper.learning_rate * np.median(ratio))) if ratio.size else float(hyper.learning_rate)


def _best_of(form: Form, hyper: Hyper, target: Target, names: Sequence[str]) -> Hyper:
    """Of usual values those with the fewest wrong signs: steps of one size have no slope to follow."""
    if not names:
        return hyper
    usual = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
    settings = np.array(list(itertools.product(usual, repeat=len(names)))).reshape(-1, len(names))
    values = {name: settings[:, i : i + 1] for i, name in enumerate(names)}
    with np.errstate(all="ignore"):
        made = np.stack(list(updates(form, hyper._replace(**values), target.seen)), axis=1)
    wrong = (np.abs(made - target.updates) > hyper.learning_rate).sum(axis=(1, 2))
    return hyper._replace(**{name: float(settings[wrong.argmin(), i]) for i, name in enumerate(names)})


def free(form: Form, hyper: Hyper) -> list[str]:
    """The hyper-parameters of a form that can be fitted: not those at the end of their range, which are choices."""
    return [name for name in used(form) if getattr(hyper, name) != 0]


def _to_line(name: str, value: float) -> float:
    """A hyper-parameter's place on the line of all numbers."""
    if name in ("b1", "b2", "momentum", "dampening"):
        return float(np.log(max(1 - value, 1e-15)))
    return float(np.log(max(value, 1e-300)))


def _from_line(name: str, place: np.ndarray) -> np.ndarray:
    if name in ("b1", "b2", "momentum", "dampening"):
        return 1 - np.exp(np.minimum(place, 5.0))
    return np.exp(np.clip(place, -200, 200))


def _rounded(value: float) -> float:
    """The number of few digits that is meant, where one is as near as a fit can tell."""
    for digits in range(1, 7):
        short = float(f"{value:.{digits}g}")
        if abs(short - value) <= 1e-7 * abs(value):
            return short
    for digits in range(1, 7):
        if abs((short := 1 - float(f"{1 - value:.{digits}g}")) - value) <= 1e-7 * abs(1 - value):
            return float(f"{short:.12g}")
    return value
