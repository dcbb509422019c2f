"""Both optimizers through the script, in one dtype: what each did, and where they differ."""

from typing import NamedTuple

import jax
import numpy as np

from nnjax.optcheck.rules.library_rules import Named
from nnjax.optcheck.rules.update_rule import updates
from nnjax.optcheck.trace.adapters import Candidate, NotAnOptimizerError
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.gradient_script import MAGNITUDES, PATTERNS, STEPS, Script, names, script, seen
from nnjax.optcheck.trace.traces import Divergence, Mode, Trace, differs, first_divergence, limit, run
from nnjax.types import PyTree

DTYPES = ("float64", "float32")


class Observed(NamedTuple):
    """One run of both through a script."""

    name: str
    dtype: str
    script: Script
    candidate: Trace
    reference: Trace
    lost: np.ndarray | float = 0.0  # (steps, elements), what rounding costs the reference itself, where that is known


class Pass(NamedTuple):
    """What is said of one run."""

    name: str  # "float64", "float32", "float64, another learning rate at every step"
    dtype: str
    first: Divergence | None
    wrong: dict[str, float]  # share of updates that differ, by magnitude of the gradients
    leaves: tuple[str, ...]  # those in which any differs; () for all
    patterns: tuple[str, ...]  # of gradients in time; () for all


def observe(
    name: str, candidate: Candidate, reference: Candidate | Named, given: Script, dtype: str, deadline: Deadline
) -> Observed:
    """Both on the same gradients and, as far as they can be given any, the same parameters."""
    if isinstance(reference, Candidate) and reference.params_of is not None and candidate.params_of is None:
        other = _traced("reference", reference, given, dtype, deadline)
        one = _traced("candidate", candidate, given, dtype, deadline, _tree(other, given))
        return Observed(name, dtype, given, one, other)
    one = _traced("candidate", candidate, given, dtype, deadline)
    if isinstance(reference, Named):
        return Observed(name, dtype, given, one, of_form(reference, one, given))
    params = _tree(one, given) if candidate.params_of is not None and reference.params_of is None else None
    return Observed(name, dtype, given, one, _traced("reference", reference, given, dtype, deadline, params))


def in_both_dtypes(candidate: Candidate, reference: Candidate | Named, deadline: Deadline) -> tuple[Observed, Observed]:
    """In float64 and in float32. What the reference itself loses in float32 cannot be held against a candidate:
    RAdam's ρ for one is a small difference of large numbers.
    """
    double, single = (observe(dtype, candidate, reference, script(), dtype, deadline) for dtype in DTYPES)
    if isinstance(reference, Candidate):
        single = single._replace(lost=np.abs(single.reference.updates - double.reference.updates))
    return double, single


def _traced(
    role: str, optimizer: Candidate, given: Script, dtype: str, deadline: Deadline, params: PyTree = None
) -> Trace:
    """A trace; what it raises is told with whose it is."""
    try:
        return trace(optimizer, given, dtype, deadline, params)
    except NotAnOptimizerError:
        raise
    except Exception as error:
        error.add_note(f"optcheck: raised by the {role}, given {dtype} leaves of 0 to 4 dimensions")
        raise


def trace(candidate: Candidate, given: Script, dtype: str, deadline: Deadline, params: PyTree = None) -> Trace:
    """All steps; jitted where that works, for it is quicker. That it does not is a matter of the contract."""
    modes: tuple[Mode, ...] = ("jit", "eager") if candidate.pure else ("eager",)
    for mode in modes:
        try:
            return run(candidate, given, dtype, mode, deadline, params)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError, TypeError, ValueError, AttributeError):
            if mode == modes[-1]:
                raise
    raise AssertionError


def of_form(named: Named, like: Trace, given: Script) -> Trace:
    """What a form would have done."""
    with np.errstate(all="ignore"):
        made = np.stack(list(updates(named.form, named.hyper, seen(given)._replace(params=like.params))))
    return Trace(made, like.params, "eager")


def told(observed: Observed) -> Pass:
    """Where they differ."""
    one, other, given = observed.candidate, observed.reference, observed.script
    limits = limit(one, other, observed.dtype, observed.lost)
    wrong = differs(one, other, limits)
    magnitude, pattern = np.concatenate(given.magnitude), np.concatenate(given.pattern)
    leaf = np.repeat(np.arange(len(given.pattern)), [len(p) for p in given.pattern])
    kinds = [name.split("/", 1)[1] for name in names(given.grads)]  # of the leaves at zero and others
    bad = sorted({kinds[i] for i in np.unique(leaf[wrong.any(0)])})
    shown = [name for i, name in enumerate(PATTERNS) if wrong[:, pattern == i].any()]
    return Pass(
        observed.name,
        observed.dtype,
        first_divergence(one, other, given, limits),
        {f"{m:.0e}": float(wrong[:, magnitude == m].mean()) for m in MAGNITUDES},
        () if set(bad) >= set(kinds) - {"temperature"} else tuple(bad),  # which is one number
        () if len(shown) == len(PATTERNS) else tuple(shown),
    )


def _tree(trace_: Trace, given: Script) -> PyTree:
    """The parameters that an optimizer kept to itself, as those of the script."""
    leaves, treedef = jax.tree.flatten(given.params)
    ends = np.cumsum([leaf[0].size for leaf in leaves])[:-1]
    parts = np.split(trace_.params, ends, axis=1)
    shaped = [part.reshape(STEPS, *leaf.shape[1:]) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(treedef, shaped)
