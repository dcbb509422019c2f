"""Does a form make these updates, and with which hyper-parameters would it?"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nnjax.optcheck.rules.rule_choices import used
from nnjax.optcheck.rules.update_rule import Form, Hyper, Seen, updates

COARSE = 48  # elements looked at first
DECAY_RATES = ("b1", "b2", "momentum", "dampening")  # between 0 and 1
USUAL = {
    "b1": (0.8, 0.95),
    "b2": (0.9, 0.95, 0.98, 0.99, 0.999),
    "eps": (1e-10, 1e-8, 1e-6, 1e-3),
    "momentum": (0.5, 0.9, 0.99),
}
FINE = dict.fromkeys(("b1", "b2"), (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999))  # where only signs tell


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


def within(form: Form, hyper: Hyper, target: Target) -> float:
    """The share of the updates that the form makes, within rounding."""
    with np.errstate(all="ignore"):
        made = np.stack(list(updates(form, hyper, target.seen)))
        near = np.abs(made - target.updates) <= target.allowed
    return float((near | (made == target.updates)).mean())


def error(form: Form, hyper: Hyper, target: Target) -> float:
    """The largest difference relative to the larger of the two updates, of those that rounding does not blur."""
    with np.errstate(all="ignore"):
        made = np.stack(list(updates(form, hyper, target.seen)))
        largest = np.maximum(np.abs(made), np.abs(target.updates))
        sharp = target.allowed < 1e-6 * largest
        relative = np.where(sharp & (made != target.updates), np.abs(made - target.updates) / largest, 0.0)
    return float(np.nan_to_num(relative, nan=np.inf).max(initial=0.0))


def roughly(form: Form, hyper: Hyper, target: Target, names: Sequence[str]) -> Fit:
    """As `refit`, but only to see whether that is worth while: 12 steps, few evaluations. Takes 10 ms, not 100."""
    target = target.beginning(12) if needs_all(form) else target.beginning(12).part(coarse(target))
    return _least_squares(form, _usual(form, hyper, target, names), target, names, evaluations=8)


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
    for start in (hyper, _usual(form, hyper, target, names)):
        fit = _least_squares(form, start, target, names, evaluations=60)
        best = fit if fit.cost < best.cost else best
        if best.cost < 1e-12:
            break
    return best


def rate_of(form: Form, hyper: Hyper, target: Target) -> float:
    """The learning rate that scales the form's updates to those wanted, in the median."""
    target = target if needs_all(form) else target.part(coarse(target))
    return _rounded(float(hyper.learning_rate * _scales(_made(form, hyper, target), target)[0]))


def _least_squares(form: Form, start: Hyper, target: Target, names: Sequence[str], *, evaluations: int) -> Fit:
    from scipy.optimize import least_squares

    names = [name for name in names if form.sign == "none" or name not in FINE]  # which have no slope there
    if not names:
        return Fit(start, float((_misses(_made(form, start, target), target) ** 2).sum()) / 2)
    step = 1e-6 * np.concatenate([0 * np.eye(len(names))[:1], np.eye(len(names)), -np.eye(len(names))])

    def evaluated(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Misses and their slopes, in one go: a form takes as long for one setting as for ten."""
        points = point + step
        moved = start._replace(**{name: _from_line(name, points[:, i : i + 1]) for i, name in enumerate(names)})
        at = _misses(_made(form, moved, target), target)
        up, down = at[1 : len(names) + 1], at[len(names) + 1 :]
        return at[0], (up - down).T / 2e-6

    latest: list[Any] = [None, None]

    def misses(point: np.ndarray) -> Any:
        latest[:] = point.copy(), evaluated(point)
        return latest[1][0]

    def slopes(point: np.ndarray) -> Any:
        return (latest[1] if np.array_equal(latest[0], point) else evaluated(point))[1]

    point = np.array([_to_line(name, float(getattr(start, name))) for name in names])
    found = least_squares(misses, point, jac=slopes, ftol=1e-4, xtol=1e-15, gtol=1e-15, max_nfev=evaluations)
    fitted = {name: float(_from_line(name, found.x[i])) for i, name in enumerate(names)}
    return Fit(start._replace(**{name: _rounded(value) for name, value in fitted.items()}), float(found.cost))


def _usual(form: Form, hyper: Hyper, target: Target, names: Sequence[str]) -> Hyper:
    """Of usual values those that come nearest: a fit that begins too far away ends somewhere else."""
    usual = FINE if form.sign == "sign" else USUAL
    rates = {name: (float(getattr(hyper, name)), *usual[name]) for name in names if name in usual}
    settings = np.array(list(itertools.product(*rates.values())))
    made = _made(form, hyper._replace(**{name: settings[:, i : i + 1] for i, name in enumerate(rates)}), target)
    if "learning_rate" in names:
        made = made * _scales(made, target)[:, None, None]
    best = int((_misses(made, target) ** 2).sum(1).argmin())
    hyper = hyper._replace(**{name: float(settings[best, i]) for i, name in enumerate(rates)})
    return hyper._replace(learning_rate=rate_of(form, hyper, target)) if "learning_rate" in names else hyper


def _made(form: Form, hyper: Hyper, target: Target) -> np.ndarray:
    """(settings, steps, elements)"""
    with np.errstate(all="ignore"):
        made = np.stack(list(updates(form, hyper, target.seen)))
    return made[None] if made.ndim == 2 else made.swapaxes(0, 1)


def _misses(made: np.ndarray, target: Target) -> np.ndarray:
    """(settings, residuals), the differences relative to the updates, 1 at most."""
    top = np.maximum.accumulate(np.abs(target.updates), axis=0)
    scale = np.maximum(np.abs(target.updates), 1e-3 * top)
    known = np.isfinite(target.updates) & (scale > 0)
    with np.errstate(all="ignore"):
        relative = ((made - target.updates) / scale)[:, known]
    return np.tanh(np.nan_to_num(relative, nan=1e3, posinf=1e3, neginf=-1e3))


def _scales(made: np.ndarray, target: Target) -> np.ndarray:
    """(settings,), what brings the updates to the size of those wanted, in the median."""
    with np.errstate(all="ignore"):
        ratios = np.abs(target.updates / made).reshape(len(made), -1)
    sound = [row[np.isfinite(row) & (row > 0)] for row in ratios]
    return np.array([np.median(row) if row.size else 1.0 for row in sound])


def free(form: Form, hyper: Hyper) -> list[str]:
    """The hyper-parameters of a form that can be fitted: not those at the end of their range, which are choices."""
    return [name for name in used(form) if getattr(hyper, name) != 0]


def _to_line(name: str, value: float) -> float:
    """A hyper-parameter's place on the line of all numbers."""
    if name in DECAY_RATES:
        value = min(max(value, 1e-12), 1 - 1e-12)
        return float(np.log(value / (1 - value)))
    return float(np.log(max(value, 1e-300)))


def _from_line(name: str, place: np.ndarray) -> np.ndarray:
    if name in DECAY_RATES:
        return 1 / (1 + np.exp(np.clip(-place, -30, 30)))
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
