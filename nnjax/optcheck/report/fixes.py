"""Suggest changes that make the two optimizers equal, with library calls only if they were checked to match."""

import functools
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax.optcheck.calling.adapters import adapt
from nnjax.optcheck.reading.difference import NONE
from nnjax.optcheck.rules.families import equations
from nnjax.optcheck.rules.library_calls import optax_call, torch_call
from nnjax.optcheck.rules.update_rule import Formula
from nnjax.optcheck.search.diagnosis import Diagnosis
from nnjax.optcheck.trace.deadline import Deadline, TimeLimitError
from nnjax.optcheck.trace.gradient_script import unflatten
from nnjax.optcheck.trace.observations import Observation
from nnjax.optcheck.trace.tolerance import tolerance, within
from nnjax.optcheck.trace.traces import trace

MATRICES = "lambda params: jax.tree.map(lambda p: {test}, params)"


def fixes(diagnosis: Diagnosis, observation: Observation, *, torch: bool, deadline: Deadline) -> tuple[str, ...]:
    """Return texts with the changes that fix the candidate, and with a library call that reproduces the candidate.

    The call is omitted if none is known to match. Without a formula of both optimizers, only equations that differ are
    named, if they could be read from what the candidate stores.

    Args:
      diagnosis: the explanation of the difference.
      observation: the updates of both optimizers; the call must reproduce the candidate's updates.
      torch: True if the reference is a PyTorch optimizer; PyTorch classes are then tried before optax.
      deadline: the time limit, checked before every step.
    """
    if not diagnosis.explanations or diagnosis.reference is None:
        changes = [
            f"no {cause.value}" if cause.reference.endswith(NONE) else cause.reference for cause in diagnosis.causes
        ]
        return (f"in the candidate, use {';  '.join(changes)}",) if changes else ()
    explanation = diagnosis.explanations[0]
    lines = _changes(equations(explanation.formula), equations(diagnosis.reference))
    leaves = next((cause.leaves for cause in explanation.causes if cause.leaves), None)
    where = f" in {', '.join(leaves)}" if leaves else ""
    suggestions = [f"in the candidate{where}, use {';  '.join(lines)}"] if lines else []
    for other in diagnosis.explanations:
        for text in _calls(other.formula, diagnosis.reference, leaves, observation, torch):
            if _reproduces(text, observation, deadline):
                return (*suggestions, f"or use as the reference: {text}  (checked: matches)")
    return tuple(suggestions)


def _changes(ours: list[str], theirs: list[str]) -> list[str]:
    """Return the equations and numbers that the candidate must take from the reference, and those that it must drop."""
    *our_lines, our_numbers = ours
    *their_lines, their_numbers = theirs
    changes = [line for line in their_lines if line not in our_lines]
    ours_of, theirs_of = (Counter(line.partition(" ← ")[0] for line in lines) for lines in (our_lines, their_lines))
    for line in our_lines:
        name, arrow, _ = line.partition(" ← ")  # g may be changed twice, by clipping and by weight decay
        if arrow and line not in their_lines and ours_of[name] > theirs_of[name]:
            changes.append(f"no {line}")
    old, new = (dict(number.split(" = ") for number in text.split(", ")) for text in (our_numbers, their_numbers))
    starts = {name: "0" for name in ("m₀", "v₀", "b₀") if name in old}
    return changes + [f"{name} = {value}" for name, value in (starts | new).items() if old.get(name) != value]


def _calls(
    formula: Formula, reference: Formula, leaves: tuple[str, ...] | None, observation: Observation, torch: bool
) -> list[str]:
    """Return code for library optimizers that could reproduce the candidate."""
    if leaves is None:
        calls = [torch_call(formula), optax_call(formula)]
        return [text for text in (calls if torch else calls[::-1]) if text]
    where = _leaf_test(leaves, observation)
    calls = []
    if formula._replace(rule=formula.rule._replace(decay=reference.rule.decay)).rule == reference.rule:
        decayed, mask = (reference, f"not ({where})") if formula.rule.decay == "none" else (formula, where)
        calls.append(optax_call(decayed, mask=MATRICES.format(test=mask) if "path" not in where else _by_path(mask)))
    inside, outside = optax_call(formula), optax_call(reference)
    if inside and outside:
        choice = f"'candidate' if {where} else 'reference'"
        labels = MATRICES.format(test=choice) if "path" not in where else _by_path(choice)
        calls.append(f"optax.partition({{'candidate': {inside}, 'reference': {outside}}}, {labels})")
    return [text for text in calls if text]


def _leaf_test(leaves: tuple[str, ...], observation: Observation) -> str:
    """Return an expression that is true only for these leaves: a test of their dimensions, or else of their paths."""
    script = observation.script
    names = [name.split("/", 1)[1] for name in script.leaf_names]
    dimensions = {name: len(shape) for name, shape in zip(names, script.shapes, strict=True) if name != "temperature"}
    inside = {dimensions[name] for name in leaves if name in dimensions}
    outside = {size for name, size in dimensions.items() if name not in leaves}
    if inside and outside and max(outside) < min(inside):
        return f"p.ndim > {max(outside)}"
    if inside and outside and max(inside) < min(outside):
        return f"p.ndim < {min(outside)}"
    return f"path.endswith({tuple(leaves)!r})" if len(leaves) > 1 else f"path.endswith({leaves[0]!r})"


def _by_path(test: str) -> str:
    keys = "path := jax.tree_util.keystr(keys, simple=True, separator='/')"
    return f"lambda params: jax.tree_util.tree_map_with_path(lambda keys, p: [{keys}, {test}][1], params)"


def _reproduces(text: str, observation: Observation, deadline: Deadline) -> bool:
    """Return True if the code creates an optimizer with the same updates as the candidate."""
    names: dict[str, Any] = {"jax": jax, "jnp": jnp, "optax": optax, "functools": functools}
    if "torch." in text:
        import torch

        names["torch"] = torch
    script, candidate = observation.script, observation.candidate
    try:
        optimizer = eval(text, names)  # the code was generated above
        params = unflatten(candidate.params, script.params)
        result = trace(adapt(optimizer), script, observation.dtype, deadline, params)
    except TimeLimitError:
        raise
    except Exception:  # for example, this version of the library lacks an argument
        return False
    bound = tolerance(result, candidate, observation.dtype, observation.reference_error)
    return bool(within(result.updates, candidate.updates, bound).all()) and np.isfinite(result.updates).any()
