"""Compare an optimizer with a reference, and find where and why they differ."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from nnjax import checks
from nnjax.optcheck.calling.adapter import Adapter
from nnjax.optcheck.calling.factories import build, build_with_schedule, optimizer_of
from nnjax.optcheck.calling.kinds import NotAnOptimizerError
from nnjax.optcheck.contract.contract_checks import contract_violations, structure_violations
from nnjax.optcheck.contract.violations import Violation, make_violation
from nnjax.optcheck.reading.difference import Line, read_difference
from nnjax.optcheck.report.fixes import fixes
from nnjax.optcheck.report.report import Report
from nnjax.optcheck.rules.families import equations, is_by_leaf
from nnjax.optcheck.rules.library_arguments import formula_of
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.update_rule import Formula
from nnjax.optcheck.search.budget import Budget
from nnjax.optcheck.search.by_dimensions import ZeroUpdatesError, identify_optimizer
from nnjax.optcheck.search.causes import check_ids
from nnjax.optcheck.search.diagnosis import MAX_FITS, Diagnosis, diagnose, diagnose_match
from nnjax.optcheck.trace.deadline import Deadline, exits_are_errors, interrupt_at
from nnjax.optcheck.trace.gradient_script import MORE_STEPS, GradientScript, gradient_script, second_script
from nnjax.optcheck.trace.observations import (
    Observation,
    loss_by_rounding,
    observe,
    observe_both_dtypes,
    summarise,
    with_rounded_product,
)
from nnjax.optcheck.trace.tolerance import RELATIVE
from nnjax.types import PyTree

READ_LEAVES = ("norm/scale", "dense/w")  # a vector and a matrix from which equations are read
SCHEDULED = "float64, learning rate changes at every step"
SECOND = f"float64, {MORE_STEPS} steps of other gradients"
SAME_IN_FLOAT64 = (
    "all updates are equal in float64, so the formula is that of the reference; the candidate loses digits in "
    "float32, or uses numbers that float32 does not have"
)


def compare(
    candidate: Any,
    reference: Any,
    *,
    hparams: Mapping[str, Any] | None = None,
    kind: str | None = None,
    init: Callable[[PyTree], Any] | str | None = None,
    order: Sequence[str] | None = None,
    max_fits: int = MAX_FITS,
    seconds: float | None = None,
) -> Report:
    """Compare the updates of an optimizer with those of a reference, and name the cause if they differ.

    Both receive the same scripted gradients, with magnitudes from 1e-14 to 1e3, in float64 and in float32. If updates
    differ by more than rounding, known update rules are searched for the one that the candidate follows. The contract
    is also checked: JAX code must work under jit, scan and vmap, and no step may change its inputs or spread NaN.

    Args:
      candidate: an optimizer of one of the following kinds, or, with `hparams`, a function that makes one:
        - an `optax.GradientTransformation` (extra arguments of `update` are the value 1, gradient and function of a
          small quadratic), a pair `(init, update)`, or a triple `(init, update, get_params)`;
        - a function `step(params, grads, state) -> (params, state)`, with its arguments in any order;
        - an object with a method such as `step(params, grads)`, `update` or `apply_gradients`, which returns
          parameters or updates, or changes them in place;
        - a class or function that makes an optimizer from parameters, `lambda params: torch.optim.Adam(params)`;
        - a function without arguments that makes a step function with its own state;
        - a function that runs the whole loop, `adam(grad, x0, …)`.
        Optimizers that do not accept a pytree of parameters receive a flat dict, a list, pairs `[(w, b), …]`, layers,
        one array, one leaf at a time, or tensors.
      reference: the same, or a name: "optax.adam", "nnjax.adam", "torch.optim.Adam", or a library's formula, such as
        "torch.adamw", "keras.rmsprop", "jax.example_libraries.adam".
      hparams: the arguments for functions that make optimizers, such as `dict(learning_rate=0.5, weight_decay=0.5)`;
        None if both are optimizers or names. Choose large values, because small ones can hide a difference. If
        `hparams` contains a learning_rate and both accept schedules, they are also compared with a learning rate that
        changes at every step.
      kind: the kind of the candidate: "optax", "pair", "triple", "step", "object", "torch", "holder" (a function
        that takes the parameters and returns an optimizer) or "loop"; None to detect it.
      init: function that returns the initial state of a step function, `init(params)`, or a tuple of initial values if
        there are several state arguments; "zeros" for zeros with the same structure as the parameters; None to use
        the function's attribute `init` if it has one, or else to try None, an empty dict and zeros.
      order: the role of each argument of a step function: "params", "grads", "state" or "count"; None to infer it from
        the names, or from trial calls if the names do not determine it. The report prints the order.
      max_fits: maximum number of update rules to fit to the candidate before the cause is reported as unknown. The
        default takes up to a minute on two cores. The result does not depend on the speed of the machine.
      seconds: an upper limit on the wall-clock time; None for no limit. Compiled code is not interrupted.

    Returns:
      A `Report`; `print` shows it as text.

    Raises:
      NotAnOptimizerError: if an argument is not an optimizer, or cannot run on gradients alone.
      TimeLimitError: if the comparison takes longer than `seconds`.
      ValueError: if `kind` is unknown or `seconds` is not positive.
      RuntimeError: if an optimizer tries to end the process.
      Exception: any exception that an optimizer raises in its update.

    >>> import optax
    >>> from nnjax import optcheck
    >>> report = optcheck.compare(optim.rmsprop(1e-3), optax.rmsprop(1e-3, eps_in_sqrt=False))
    >>> report.ok, [cause.id for cause in report.causes]
    (False, ['eps-inside'])
    """
    start, deadline = time.perf_counter(), _deadline("compare", seconds)
    with interrupt_at(deadline), _standard_promotion(), exits_are_errors():
        ours, theirs = _build_candidate(candidate, hparams, kind, init, order), build(reference, hparams)
        titles = _title(candidate, ours, "the candidate"), _title(reference, theirs, "the reference")
        if violations := structure_violations(ours):
            return Report(*titles, seconds=time.perf_counter() - start, violations=tuple(violations))
        guess = theirs if isinstance(theirs, Formula) else _guess(reference, hparams)
        observations = [
            with_rounded_product(observation, guess) for observation in observe_both_dtypes(ours, theirs, deadline)
        ]
        pair, options = (candidate, reference), (kind, init, order)
        if hparams is not None:
            script = gradient_script(scheduled=True, ndim=ours.ndim)
            more = _observe_with_schedule(script, pair, hparams, options, deadline)
            observations += [with_rounded_product(observation, guess) for observation in more]
        scheduled = len(observations) > 2
        own = _own_violations(contract_violations(ours, deadline), theirs, deadline)

        def repeat(name: str, dtype: str) -> Observation:
            """Run both optimizers on the other script than in an observation, with the same schedule."""
            if name == SCHEDULED:
                script = second_script(scheduled=True, ndim=ours.ndim)
                scheduled = _observe_with_schedule(script, pair, hparams or {}, options, deadline)[0]
                return with_rounded_product(scheduled, guess)
            if name == SECOND:
                return observations[0]
            script = second_script(ndim=max(ours.ndim, getattr(theirs, "ndim", 0)))
            second = observe(ours, theirs, dtype, deadline, script)._replace(name=SECOND)
            return with_rounded_product(second, guess)

        passes = tuple(summarise(observation) for observation in observations)
        if all(part.divergence is None for part in passes):
            second = repeat("float64", "float64")
            if (part := summarise(second)).divergence is not None:
                observations, passes = [*observations, second], (*passes, part)
        wrong = [i for i, part in enumerate(passes) if part.divergence is not None]
        own += _rounding_note(observations[1]) if not wrong else ()
        in_float64 = [i for i in wrong if passes[i].dtype == "float64"]
        index = (in_float64 or wrong or [2 if scheduled else 0])[-1]
        is_torch = isinstance(theirs, Adapter) and theirs.kind == "torch"
        if wrong and not in_float64:
            diagnosis = Diagnosis(guess, remark=SAME_IN_FLOAT64)
        elif wrong:
            other = functools.partial(repeat, *observations[index][:2])
            read = functools.partial(_read, ours, theirs, passes[index].leaves, deadline)
            diagnosis = diagnose(passes[index], observations[index], guess, max_fits, other, read)
        else:
            diagnosis = diagnose_match(observations[0], guess)
        return Report(
            *titles,
            seconds=time.perf_counter() - start,
            violations=_expected_of(own, diagnosis, observations[0]) + _empty_match(observations[0]),
            passes=passes,
            diagnosis=diagnosis,
            fixes=fixes(
                diagnosis,
                observations[index],
                torch=is_torch,
                deadline=deadline,
            ),
            not_observed=diagnosis.not_observed + _schedule_remark(scheduled, hparams),
            traces=(observations[index].candidate, observations[index].reference),
            called=ours.called,
        )


def identify(
    optimizer: Any,
    *,
    hparams: Mapping[str, Any] | None = None,
    kind: str | None = None,
    init: Callable[[PyTree], Any] | str | None = None,
    order: Sequence[str] | None = None,
    max_fits: int = MAX_FITS,
    seconds: float | None = None,
) -> str:
    """Return the equations of an optimizer, and the names of library optimizers with the same rule.

    Args:
      optimizer: see `candidate` of `compare`.
      hparams: see `compare`.
      kind: see `compare`.
      init: see `compare`.
      order: see `compare`.
      max_fits: see `compare`.
      seconds: see `compare`.

    Returns:
      The names and the equations as text. If no rule that was tried reproduces the updates, the text begins with
      "unknown", and continues with the equations if they can be read from what the optimizer stores, as x, y, …
      It also begins with "unknown" if all updates are zero, because many rules have this effect.

    Raises:
      NotAnOptimizerError, TimeLimitError, ValueError, RuntimeError, Exception: see `compare`.

    >>> from nnjax import optcheck
    >>> print(optcheck.identify(optim.rmsprop(1e-3)))
    the rule of optax.rmsprop, keras.rmsprop, jax.example_libraries.rmsprop:
    v ← β₂ v + (1 - β₂) g²
    θ ← θ - λ g / √(v + ε)
    λ = 0.001, β₂ = 0.9, ε = 1e-08
    """
    deadline = _deadline("identify", seconds)
    with interrupt_at(deadline), _standard_promotion(), exits_are_errors():
        adapter = _build_candidate(optimizer, hparams, kind, init, order)
        budget = Budget(max_fits)
        try:
            parts = identify_optimizer(adapter, budget, deadline)
        except ZeroUpdatesError as error:
            return f"unknown: {error}"
        lines = () if parts else _read(adapter, adapter, (), deadline, LIBRARY_RULES["torch.sgd"])
    if not parts:
        forms = sum(level.forms for level in budget.levels)
        unknown = f"unknown: none of the {forms:,} rules tried reproduces these updates ({budget.used:,} fitted)"
        read = lines != () and all(line.known for line in lines)
        return "\n".join([unknown, *(f"{line.name} ← {line.candidate}" for line in lines if read)])
    return "\n".join(line for leaves, formula in parts for line in _identified(leaves, formula))


def _identified(leaves: str, formula: Formula) -> list[str]:
    """Return the names of library optimizers with a rule, and its equations."""
    names = [name for name, library in LIBRARY_RULES.items() if library.rule == formula.rule]
    where = f"in {leaves}, " if leaves else ""
    return [
        f"{where}the rule of {', '.join(names)}:" if names else f"{where}no library has this rule:",
        *equations(formula),
    ]


def assert_matches(
    candidate: Any,
    reference: Any,
    *,
    allow: Sequence[str] = (),
    hparams: Mapping[str, Any] | None = None,
    kind: str | None = None,
    init: Callable[[PyTree], Any] | str | None = None,
    order: Sequence[str] | None = None,
    max_fits: int = MAX_FITS,
    seconds: float | None = None,
) -> None:
    """Raise AssertionError with the report if an optimizer differs from a reference or violates the contract.

    Args:
      candidate: see `compare`.
      reference: see `compare`.
      allow: the `id`s of causes to accept, such as "lr-in-velocity" or "b2".
      hparams: see `compare`.
      kind: see `compare`.
      init: see `compare`.
      order: see `compare`.
      max_fits: see `compare`.
      seconds: see `compare`.

    Raises:
      AssertionError: if they differ for a reason that is unknown or not in `allow`, or if the candidate violates the
        contract.
      ValueError: if `allow` is a string or contains an unknown id, or as in `compare`.
      NotAnOptimizerError, TimeLimitError, RuntimeError, Exception: see `compare`.

    >>> import optax
    >>> from nnjax import optcheck
    >>> optcheck.assert_matches(optim.rmsprop(1e-3), optax.rmsprop(1e-3, eps_in_sqrt=False), allow=["eps-inside"])
    """
    check_ids(allow)
    report = compare(
        candidate, reference, hparams=hparams, kind=kind, init=init, max_fits=max_fits, seconds=seconds, order=order
    )
    if report.broken or not (report.matches or report.allowed(allow)):
        raise AssertionError(str(report))


def _read(
    adapter: Adapter, other: Adapter | Formula, leaves: tuple[str, ...], deadline: Deadline, reference: Formula | None
) -> tuple[Line, ...]:
    """Compare the equations of two optimizers in some of the leaves that differ.

    Args:
      adapter: the candidate.
      other: the reference.
      leaves: the leaves that differ; () for all.
      deadline: the time limit, checked before every step.
      reference: the formula of the reference, which is used instead if it is known.
    """
    read = [leaf for leaf in READ_LEAVES if not leaves or leaf in leaves] or leaves[:1]
    scripts = (gradient_script(ndim=adapter.ndim), second_script(ndim=adapter.ndim))
    lines = read_difference(adapter, other if reference is None else reference, scripts, read, deadline)
    if leaves and len(read) == 1:
        return tuple(line._replace(name=f"in {read[0]}: {line.name}") for line in lines)
    return lines


def _deadline(function: str, seconds: float | None) -> Deadline:
    return Deadline(
        None if seconds is None else checks.in_range(f"optcheck.{function}", "seconds", seconds, "(0, inf)")
    )


@contextmanager
def _standard_promotion() -> Iterator[None]:
    """Allow implicit promotion of dtypes and ranks, because optax needs it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _build_candidate(
    optimizer: Any, hparams: Mapping[str, Any] | None, kind: str | None, init: Any, order: Sequence[str] | None
) -> Adapter:
    adapter = build(optimizer, hparams, kind, init, None if order is None else tuple(order))
    if isinstance(adapter, Formula):
        raise NotAnOptimizerError(f"optcheck: {optimizer!r} names a formula; pass it as the reference")
    return adapter


def _title(argument: Any, optimizer: Adapter | Formula, default: str) -> str:
    """Return the optimizer's name for the report, or the default for kinds without a name, such as optax's."""
    if isinstance(argument, str):
        return argument
    has_name = isinstance(optimizer, Adapter) and optimizer.kind in ("step", "object", "torch", "holder", "loop")
    return optimizer.name if isinstance(optimizer, Adapter) and has_name else default


def _guess(reference: Any, hparams: Mapping[str, Any] | None) -> Formula | None:
    """Return the formula that the reference's arguments or its name suggest, or None."""
    if isinstance(reference, Adapter):
        return None
    formula = formula_of(optimizer_of(reference, hparams))
    if formula is not None or not isinstance(reference, str) or reference not in LIBRARY_RULES:
        return formula
    rule, hyper = LIBRARY_RULES[reference]
    values = {name: value for name, value in (hparams or {}).items() if name in hyper._fields}
    return Formula(rule, hyper._replace(**values))


def _observe_with_schedule(
    script: GradientScript, optimizers: tuple[Any, Any], hparams: Mapping[str, Any], options: Any, deadline: Deadline
) -> list[Observation]:
    """Observe both optimizers with a learning rate that changes at every step; return [] if one takes no schedule."""
    candidate = build_with_schedule(optimizers[0], hparams, script, *options)
    reference = build_with_schedule(optimizers[1], hparams, script)
    if not isinstance(candidate, Adapter) or reference is None:
        return []
    try:
        return [observe(candidate, reference, "float64", deadline, script)._replace(name=SCHEDULED)]
    except (TypeError, ValueError, AttributeError):  # the optimizer uses the schedule as a number
        return []


def _own_violations(
    violations: list[Violation], reference: Adapter | Formula, deadline: Deadline
) -> tuple[Violation, ...]:
    """Return the violations that the reference does not have in the same leaves."""
    if isinstance(reference, Formula) or not any(violation.rule != "runs eagerly only" for violation in violations):
        return tuple(violations)

    def places(violation: Violation) -> set[tuple[str, str]]:
        return {(violation.rule, leaf) for leaf in violation.where.split(", ")}

    usual = set().union(*map(places, contract_violations(reference, deadline)))
    return tuple(violation for violation in violations if not places(violation) <= usual)


def _expected_of(
    violations: tuple[Violation, ...], diagnosis: Diagnosis, observation: Observation
) -> tuple[Violation, ...]:
    """Return the violations, without "NaN spreads" if the rule mixes the elements of a leaf, as Muon does."""
    mixes = bool(np.any(observation.candidate.leaf_size))
    if mixes or (diagnosis.reference is not None and is_by_leaf(diagnosis.reference.rule)):
        return tuple(violation for violation in violations if violation.rule != "NaN spreads")
    return violations


def _rounding_note(single: Observation) -> tuple[Violation, ...]:
    """Return a note if rounding in float32 changes the updates of the candidate more than those of the reference."""
    loss = loss_by_rounding(single)
    got = f"updates that rounding changes by up to {100 * loss:.1g} %"
    note = make_violation("float32 rounding", "", got, f"at most {100 * RELATIVE['float32']:.1g} %")
    return (note._replace(severity="note"),) if loss > 0 else ()


def _empty_match(observation: Observation) -> tuple[Violation, ...]:
    """Return a violation or note if the updates match only because all are NaN or all are zero."""
    updates = np.stack([observation.candidate.updates, observation.reference.updates])
    if np.isnan(updates).all():
        return (make_violation("nothing to compare", "", "NaN from both optimizers at every step", "numbers"),)
    if (updates == 0).all():
        note = make_violation("nothing to compare", "", "zeros from both optimizers at every step", "updates")
        return (note._replace(severity="note"),)
    return ()


def _schedule_remark(has_schedule: bool, hparams: Mapping[str, Any] | None) -> tuple[str, ...]:
    if has_schedule:
        return ()
    reason = "hparams= has no learning_rate, or an optimizer takes no schedule"
    if hparams is None:
        reason = "pass functions that make the optimizers, and hparams="
    return (f"the position of the learning rate, and the step at which a schedule is read ({reason})",)
