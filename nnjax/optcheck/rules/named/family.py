"""Define the common interface of named rules, and functions for rules that need whole leaves."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from nnjax.optcheck.rules.update_rule import Formula, HyperParams, Inputs

Memory = dict[str, Any]  # state of a rule between steps, by name; empty before the first step


class Step(NamedTuple):
    """The inputs of a rule at one step."""

    g: np.ndarray  # (elements,), gradient
    p: np.ndarray  # (elements,), parameters before the step
    t: int  # 1, 2, …
    rate: Any  # learning rate of this step
    leaves: tuple[tuple[slice, tuple[int, ...]], ...]  # elements and shape of each leaf
    zero: np.ndarray  # zeros with the shape of an update


class Family(NamedTuple):
    """A named rule and the choices that implementations change, intentionally or by mistake."""

    name: str
    choices: dict[str, dict[str, str]]  # place -> choice -> description
    hyper_names: Callable[[Any], list[str]]  # names of the hyper-parameters of a rule
    step: Callable[[Any, HyperParams, Memory, Step], tuple[np.ndarray, Memory]]  # -> (update, memory)
    equations: Callable[[Formula], list[str]]
    is_relevant: Callable[[Any, str], bool] = lambda rule, place: True
    by_leaf: bool = False  # True if the update of an element depends on other elements of its leaf, or on all leaves
    by_tree: bool = False  # True if the update of an element depends on all leaves


def family_updates(family: Family, formula: Formula, inputs: Inputs) -> Iterator[np.ndarray]:
    """Yield the update of each step, of shape (elements,), or (settings, elements) for hyper-parameters (settings, 1).

    Args:
      family: the family of the formula's rule.
      formula: the rule and its hyper-parameters.
      inputs: the gradients, parameters and schedule.
    """
    h = HyperParams(*(np.asarray(value, np.float64) for value in formula.hyper))
    zero = np.zeros(np.broadcast_shapes(*(np.shape(value) for value in h), inputs.grads.shape[1:]))
    leaves, memory = _leaves(inputs), Memory()
    for k, (g, p) in enumerate(zip(inputs.grads, inputs.params, strict=True)):
        step = Step(g, p, k + 1, h.learning_rate * float(inputs.rates[k]), leaves, zero)
        update, memory = family.step(formula.rule, h, memory, step)
        yield zero + update


def _leaves(inputs: Inputs) -> tuple[tuple[slice, tuple[int, ...]], ...]:
    indices, starts, sizes = np.unique(inputs.leaf, return_index=True, return_counts=True)
    shapes = [inputs.shapes[i] if inputs.shapes else (int(n),) for i, n in zip(indices, sizes, strict=True)]
    return tuple(
        (slice(int(start), int(start + size)), shape if np.prod(shape) == size else (int(size),))
        for start, size, shape in zip(starts, sizes, shapes, strict=True)
    )


def block(array: np.ndarray, leaf: tuple[slice, tuple[int, ...]]) -> np.ndarray:
    """Return the elements of a leaf, reshaped to (…, *shape)."""
    place, shape = leaf
    part = array[..., place]
    return part.reshape(*part.shape[:-1], *shape)


def leaf_rms(array: np.ndarray, step: Step) -> np.ndarray:
    """Return the root mean square of each element's leaf."""
    out = np.empty_like(step.zero)
    for place, _ in step.leaves:
        out[..., place] = np.sqrt(np.mean(array[..., place] ** 2, axis=-1, keepdims=True))
    return out


def root_of(v: np.ndarray, eps: str, h: HyperParams) -> np.ndarray:
    """Return the denominator √v with ε added "outside" or "inside" the root, or used as its lower bound ("floor")."""
    if eps == "inside":
        return np.sqrt(v + h.eps)
    root = np.sqrt(v + h.eps_root)
    return np.maximum(root, h.eps) if eps == "floor" else root + h.eps


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide two arrays, with 0 / 0 = 0."""
    ratio = np.divide(numerator, denominator)
    return np.where((denominator == 0) & (numerator == 0), 0.0, ratio)


def decayed(decay: str, u: np.ndarray, h: HyperParams, step: Step) -> np.ndarray:
    """Apply "decoupled", "proximal" or "without rate" weight decay to an update; other names leave it unchanged."""
    if decay == "decoupled":
        return u - step.rate * h.weight_decay * step.p
    if decay == "proximal":
        return (step.p + u) / (1 + step.rate * h.weight_decay) - step.p
    return u - h.weight_decay * step.p if decay == "without rate" else u


DECAY = {
    "none": "there is no weight decay",
    "decoupled": "weight decay times the learning rate is subtracted from the parameters (decoupled)",
    "l2": "weight decay is added to the gradient and passes through the moments (L2)",
    "without rate": "weight decay is not multiplied by the learning rate",
}
DECAY_TEXT = {"decoupled": " - λ w θ", "without rate": " - w θ"}
EPS = {
    "outside": "ε is added outside the root",
    "inside": "ε is added inside the root",
    "floor": "ε is the lower bound of the root",
}
EPS_TEXT = {"outside": "(√{v} + ε)", "inside": "√({v} + ε)", "floor": "max(√{v}, ε)"}
