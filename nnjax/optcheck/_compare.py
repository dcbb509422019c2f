"""Hold an optimizer against a reference: whether they differ, where, and why."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from nnjax import checks
from nnjax.optcheck.contract.promises import breaches, returned
from nnjax.optcheck.contract.violations import Breach, broken
from nnjax.optcheck.report.fixes import fixes
from nnjax.optcheck.report.report import Report
from nnjax.optcheck.rules.equations import equations
from nnjax.optcheck.rules.library_rules import NAMED, Named
from nnjax.optcheck.search.causes import check_ids, identify_form, target_of
from nnjax.optcheck.search.diagnosis import Explained, explain, matched
from nnjax.optcheck.trace.adapters import Candidate, NotAnOptimizerError
from nnjax.optcheck.trace.deadline import Deadline, enforced
from nnjax.optcheck.trace.factories import made, scheduled
from nnjax.optcheck.trace.gradient_script import script
from nnjax.optcheck.trace.observations import Observed, in_both_dtypes, observe, told, trace
from nnjax.types import PyTree

SECONDS = 60.0
SCHEDULED = "float64, another learning rate at every step"


def compare(
    candidate: Any,
    reference: Any,
    *,
    hparams: Mapping[str, Any] | None = None,
    kind: str | None = None,
    init: Callable[[PyTree], Any] | None = None,
    seconds: float = SECONDS,
) -> Report:
    """Whether an optimizer makes the same updates as a reference, and if not, what it does otherwise.

    Both see the same scripted gradients, of magnitudes from 1e-14 to 1e3, in float64 and in float32. Where they differ
    by more than rounding, the known forms of update rules are searched for the one that the candidate follows.

    Args:
      candidate: an `optax.GradientTransformation`, which is given value=0 where it takes extra arguments; a pair
        `(init, update)`; a triple `(init, update, get_params)`; a function `step(params, grads, state) -> (params,
        state)`; an object with `step(params, grads)`; or `functools.partial(torch.optim.X, …)`. With `hparams`, a
        function that makes one of these. Parameters are a tree, or, where it takes none, a flat dict, a list, an array.
      reference: the same, or a name: "optax.adam", "nnjax.adam", "torch.optim.Adam", and as libraries define it
        "torch.adamw", "keras.rmsprop", "jax.example_libraries.adam".
      hparams: what both are made with, as `dict(learning_rate=0.5, weight_decay=0.5)`: large values show what small
        ones hide, and a learning rate that changes at every step shows where it is multiplied.
      kind: what the candidate is, see `candidate.KINDS`; None to find out.
      init: for a step function, its first state.
      seconds: when to give up.

    Returns:
      A `Report`; `str` is for a person.

    Raises:
      NotAnOptimizerError: for what is no optimizer, or cannot run on gradients alone.
      OverdueError: where the optimizers do not come back in the time. Compiled code is not interrupted.
      Whatever the candidate raises in its update.

    >>> import optax
    >>> from nnjax import optcheck
    >>> report = optcheck.compare(optim.rmsprop(1e-3), optax.rmsprop(1e-3, eps_in_sqrt=False))
    >>> report.ok, [cause.id for cause in report.causes]
    (False, ['eps-inside'])
    """
    began, deadline = time.perf_counter(), Deadline(checks.in_range("optcheck.compare", "seconds", seconds, "(0, inf)"))
    with enforced(deadline), _usual_modes():
        one, other = _candidate(candidate, hparams, kind, init), made(reference, hparams, None, None)
        titles = _title(candidate, one, "the candidate"), _title(reference, other, "the reference")
        if bad := returned(one):
            seconds_taken = time.perf_counter() - began
            return Report(*titles, tuple(bad), (), None, (), "", (), "", (), seconds_taken, None)
        seen = list(in_both_dtypes(one, other, deadline))
        if hparams is not None:
            seen += _with_schedule(candidate, reference, hparams, kind, init, deadline)
        found = _own(breaches(one, deadline), other, deadline)
    passes = tuple(told(each) for each in seen)
    found += _vacuous(seen[0])
    wrong = [i for i, each in enumerate(passes) if each.first is not None]
    doubles = [i for i in wrong if passes[i].dtype == "float64"]
    shown = (doubles or wrong or [len(seen) - 1 if len(seen) > 2 else 0])[-1]
    guess = other if isinstance(other, Named) else _guess(titles[1], hparams or {})
    explained = explain(passes[shown], seen[shown], guess, deadline) if wrong else matched(seen[0], guess)
    return Report(
        *titles,
        found,
        passes,
        explained.reference,
        explained.answers,
        explained.searched,
        _fixes(titles[1], explained),
        explained.impact,
        explained.not_observed + _unseen(passes, hparams),
        time.perf_counter() - began,
        (seen[shown].candidate, seen[shown].reference),
    )


def identify(
    optimizer: Any,
    *,
    hparams: Mapping[str, Any] | None = None,
    kind: str | None = None,
    init: Callable[[PyTree], Any] | None = None,
    seconds: float = SECONDS,
) -> str:
    """What an optimizer is: its equations, and the known optimizer that it is or is next to.

    Args:
      optimizer: as for `compare`.
      hparams: as for `compare`.
      kind: as for `compare`.
      init: as for `compare`.
      seconds: when to give up.

    Raises:
      As `compare`.

    >>> from nnjax import optcheck
    >>> print(optcheck.identify(optim.rmsprop(1e-3)))
    the form of optax.rmsprop, keras.rmsprop, jax.example_libraries.rmsprop:
    v ← β₂ v + (1 - β₂) g²
    θ ← θ - λ g / √(v + ε)
    λ = 0.001, β₂ = 0.9, ε = 1e-08
    """
    deadline = Deadline(seconds)
    with enforced(deadline), _usual_modes():
        one = _candidate(optimizer, hparams, kind, init)
        given = script()
        target = target_of(trace(one, given, "float64", deadline), given, "float64")
        found = identify_form(target, None, 0.8 * deadline.left()).explanations
    if not found:
        return "unknown: none of the known forms, nor one that is two choices from one, makes these updates"
    form, hyper, *_ = found[0]
    same = [name for name, named in NAMED.items() if named.form == form]
    return "\n".join([f"the form of {', '.join(same)}:" if same else "no library's form:", *equations(form, hyper)])


def assert_matches(
    candidate: Any,
    reference: Any,
    *,
    allow: Sequence[str] = (),
    hparams: Mapping[str, Any] | None = None,
    kind: str | None = None,
    init: Callable[[PyTree], Any] | None = None,
    seconds: float = SECONDS,
) -> None:
    """Raises AssertionError with the report where an optimizer differs from a reference or breaks the contract.

    Args:
      candidate: as for `compare`.
      reference: as for `compare`.
      allow: causes that may be, by their `id`, as "lr-in-velocity" or "b2".
      hparams: as for `compare`.
      kind: as for `compare`.
      init: as for `compare`.
      seconds: as for `compare`.

    >>> import optax
    >>> from nnjax import optcheck
    >>> optcheck.assert_matches(optim.rmsprop(1e-3), optax.rmsprop(1e-3, eps_in_sqrt=False), allow=["eps-inside"])
    """
    check_ids(allow)
    report = compare(candidate, reference, hparams=hparams, kind=kind, init=init, seconds=seconds)
    if report.broken or not (report.matches or report.allowed(allow)):
        raise AssertionError(str(report))


def _guess(name: str, hparams: Mapping[str, Any]) -> Named | None:
    """The form of a reference by name, with what it was made with."""
    if name not in NAMED:
        return None
    form, hyper = NAMED[name]
    return Named(form, hyper._replace(**{key: hparams[key] for key in hparams if key in hyper._fields}))


def _with_schedule(
    candidate: Any, reference: Any, hparams: Mapping[str, Any], kind: str | None, init: Any, deadline: Deadline
) -> list[Observed]:
    """Both with another learning rate at every step; nothing where one of them takes numbers only."""
    given = script(scheduled=True)
    one, other = scheduled(candidate, hparams, given, kind, init), scheduled(reference, hparams, given, None, None)
    if not isinstance(one, Candidate) or other is None:
        return []
    try:
        return [observe(SCHEDULED, one, other, given, "float64", deadline)]
    except (TypeError, ValueError, AttributeError):  # a function where it wants a number
        return []


@contextmanager
def _usual_modes() -> Iterator[None]:
    """Strict promotion is a matter of one's own code; optax does not run under it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _candidate(optimizer: Any, hparams: Mapping[str, Any] | None, kind: str | None, init: Any) -> Candidate:
    found = made(optimizer, hparams, kind, init)
    if isinstance(found, Named):
        raise NotAnOptimizerError(f"optcheck: {optimizer!r} is a formula by name; give it as the reference")
    return found


def _own(found: list[Breach], reference: Candidate | Named, deadline: Deadline) -> tuple[Breach, ...]:
    """The breaches that are the candidate's own: what the reference does too is how such optimizers are."""
    if not found or isinstance(reference, Named):
        return tuple(found)
    usual = breaches(reference, deadline)
    same = {(breach.what, breach.where) for breach in usual}
    reached = {leaf for breach in usual if breach.what == "NaN spreads" for leaf in breach.where.split(", ")}
    return tuple(
        breach
        for breach in found
        if (breach.what, breach.where) not in same
        and not (breach.what == "NaN spreads" and set(breach.where.split(", ")) <= reached)
    )


def _vacuous(observed: Observed) -> tuple[Breach, ...]:
    """Where a match says nothing."""
    moves = np.stack([observed.candidate.updates, observed.reference.updates])
    if np.isnan(moves).all():
        return (broken("nothing to compare", "", "NaN from both at every step", "numbers"),)
    if (moves == 0).all():
        return (broken("nothing to compare", "", "zeros from both at every step", "updates")._replace(severity="note"),)
    return ()


def _title(given: Any, one: Candidate | Named, role: str) -> str:
    """A name; optax's functions leave none in what they make."""
    if isinstance(given, str):
        return given
    return one.name if isinstance(one, Candidate) and one.kind in ("step", "object", "torch") else role


def _fixes(reference: str, explained: Explained) -> tuple[str, ...]:
    if not explained.answers or explained.reference is None:
        return ()
    best, form = explained.answers[0], explained.reference.form
    if reference == "the reference":
        reference = next((n for n, named in NAMED.items() if named.form == form and n.startswith("optax.")), reference)
    theirs = equations(best.form, best.hyper)
    lines = [line for line in equations(*explained.reference) if line not in theirs]
    return fixes(reference, best.causes, best.hyper._asdict(), lines)


def _unseen(passes: tuple[Any, ...], hparams: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What is said of every comparison."""
    if any(each.name == SCHEDULED for each in passes):
        return ()
    why = "one of them takes no schedule" if hparams is not None else "give functions that make them, and hparams="
    return (f"where the learning rate is multiplied and how a schedule is read ({why})",)
