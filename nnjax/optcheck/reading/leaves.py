"""Collect the arrays of a leaf for both optimizers, and match the candidate's arrays with the reference's."""

import itertools
from collections.abc import Sequence

import numpy as np

from nnjax.optcheck.reading.coefficients import Factor, product, total
from nnjax.optcheck.reading.finite_values import with_finite_values
from nnjax.optcheck.reading.terms import Arrays, Leaf
from nnjax.optcheck.rules.families import is_by_tree
from nnjax.optcheck.rules.rule_updates import steps
from nnjax.optcheck.rules.update_rule import LION, Formula, HyperParams, UpdateRule
from nnjax.optcheck.trace.gradient_script import GradientScript, rule_inputs

UNKNOWN_RULE = Formula(UpdateRule(), HyperParams())  # gradient descent, if the rule of the reference is unknown
SYMBOLS = {"m": "m", "v": "v", "velocity": "b", "v_max": "v_max", "g_mean": "ḡ", "step_square": "s"}  # fields of State
MORE_SYMBOLS = ("x", "y", "z", "w")
USUAL = (0.9, 0.95, 0.99, 0.98, 0.999)  # decay rates of mixtures
COMPRESS = 0.05  # exponent that makes numbers of all magnitudes comparable
ALIKE = 0.8  # smallest correlation of compressed arrays that have the same role
ROUNDING = 8 * float(np.finfo(np.float64).eps)


def candidate_leaf(
    params: np.ndarray, updates: np.ndarray, elements: np.ndarray, stored: list[np.ndarray], script: GradientScript
) -> Leaf:
    """Return the leaf without arrays that are the new parameters."""
    size = np.abs(params) + np.abs(updates)
    with np.errstate(invalid="ignore"):
        stored = [array for array in stored if (np.abs(array[1:] - params - updates) > 1e-9 * size).any()]
    names = [f"array {i}" for i in range(len(stored))]
    before, after = (
        {name: array[part] for name, array in zip(names, stored, strict=True)} for part in (slice(-1), slice(1, None))
    )
    grads = rule_inputs(script).grads
    norms = np.sqrt((grads**2).sum(1))
    leaf = Leaf(grads[:, elements], params, updates, ROUNDING * size, norms, (1e-8,), before, after)
    return with_finite_values(leaf)


def reference_leaf(reference: Formula, elements: np.ndarray, ours: Leaf, script: GradientScript) -> Leaf:
    """Return the leaf with the updates and states of a formula, for the same parameters as in the candidate's leaf."""
    inputs, rule, hyper = rule_inputs(script), *reference
    places = elements
    if not is_by_tree(rule):  # the updates of a leaf depend on this leaf only
        inputs = inputs._replace(
            grads=ours.grads, params=ours.params, leaf=inputs.leaf[elements], row=inputs.row[elements]
        )
        places = np.arange(len(elements))
    with np.errstate(all="ignore"):
        rows = list(steps(reference, inputs))
    updates = np.stack([update[places] for update, _ in rows])
    starts = {
        "m": hyper.first_start,
        "v": hyper.second_start,
        "velocity": hyper.velocity_start,
        "step_square": hyper.rescaling_start,
    }
    before, after = {}, {}
    for field, symbol in SYMBOLS.items():
        size = inputs.grads.shape[1:]
        values = np.stack([np.broadcast_to(getattr(state, field), size)[places] for _, state in rows])
        start = np.full((1, len(elements)), float(starts.get(field, 0.0)))
        if (values != start).any() and (field != "m" or rule.first != "none"):
            before[symbol], after[symbol] = np.concatenate([start, values[:-1]]), values
    rounding, epsilons = ROUNDING * np.abs(updates), (float(hyper.eps),)
    return Leaf(ours.grads, ours.params, updates, rounding, ours.norms, epsilons, before, after)


def gradients_of(reference: Formula, leaf: Leaf, clips: Sequence[float], decays: Sequence[float]) -> Arrays:
    """Return the gradient, and what may be used in its place: the gradient after weight decay or clipping."""
    g, (rule, hyper) = leaf.grads, reference
    c = float(hyper.clip)
    decays = [float(hyper.weight_decay), *decays] if rule.decay != "none" else decays
    clips = [c, *clips] if rule.clip == "value" else clips
    gradients = {"g": g} | {decayed_gradient(w): g + w * leaf.params for w in decays}
    gradients |= {f"clip(g, ±{bound:g})": np.clip(g, -bound, bound) for bound in clips}
    if rule.clip == "global norm":
        with np.errstate(divide="ignore"):
            clipped = g * np.minimum(1, c / leaf.norms)[:, None]
        return {f"(g min(1, {c:g}/‖all g‖))": clipped} | gradients
    return gradients


def decayed_gradient(w: float) -> str:
    """Return the text of the gradient after weight decay, such as "(g + 0.01 θ)"."""
    return f"({total(['g', product(Factor(w), 'θ')])})"


def mixtures_of(reference: Formula, leaf: Leaf) -> Arrays:
    """Return mixtures of the first moment and the gradient, of which Lion or a wrong Lion takes the sign.

    If the rule of the reference is unknown, as with a schedule, it may be Lion if the only array is a first moment.
    """
    unknown = reference is UNKNOWN_RULE and leaf.after.keys() == {"m"}
    if not unknown and (reference.rule.first not in LION or "m" not in leaf.before):
        return {}
    usual = [(b, 1 - b) for b in USUAL]
    if unknown:
        w, weights = 0.0, [*usual, *((b, a) for a, b in usual)]
    else:
        b1, b2, w = (float(getattr(reference.hyper, name)) for name in ("b1", "b2", "weight_decay"))
        weights = [(b1, 1 - b1), (b1, 1.0), (1 - b1, b1), (b2, 1 - b2), (1.0, 1.0), (b1, b1), *usual]
    moments = {"m_old": leaf.before["m"], "m": leaf.after["m"]}
    gradients = {"g": leaf.grads} | ({f"(g + {w:g} θ)": leaf.grads + w * leaf.params} if w else {})
    return {
        f"({a:.3g} {name} + {b:.3g} {text})": a * m + b * g
        for (name, m), (text, g), (a, b) in itertools.product(
            moments.items(), gradients.items(), dict.fromkeys(weights)
        )
    }


def names_by_likeness(ours: Leaf, theirs: Leaf) -> dict[str, str]:
    """Return names for the candidate's arrays: the symbols of the reference's most similar arrays, or new symbols."""
    pairs = sorted(
        ((_likeness(a, b), name, symbol) for name, a in ours.after.items() for symbol, b in theirs.after.items()),
        reverse=True,
    )
    names: dict[str, str] = {}
    for likeness, name, symbol in pairs:
        if name not in names and symbol not in names.values() and likeness > ALIKE:
            names[name] = symbol
    missing = [symbol for symbol in theirs.after if symbol not in names.values()]
    others = [name for name in ours.after if name not in names]
    if len(missing) == len(others) == 1:
        names[others[0]] = missing[0]
    return names | dict(zip([name for name in others if name not in names], MORE_SYMBOLS, strict=False))


def renamed_leaf(leaf: Leaf, names: dict[str, str]) -> Leaf:
    """Return the leaf with other names; arrays of the reference come first, so their terms are tried first."""
    back = {symbol: name for name, symbol in names.items()}
    order = [symbol for symbol in (*SYMBOLS.values(), *MORE_SYMBOLS) if symbol in back]
    return leaf._replace(
        before={symbol: leaf.before[back[symbol]] for symbol in order},
        after={symbol: leaf.after[back[symbol]] for symbol in order},
    )


def named_by_sign(leaf: Leaf) -> Leaf:
    """Return the leaf with the names v and s for arrays that are never negative, and m and b for others."""
    squares, others = iter(("v", "s", "x", "y")), iter(("m", "b", "z", "w"))
    names = {name: next(squares if (values >= 0).all() else others) for name, values in leaf.after.items()}
    return renamed_leaf(leaf, names)


def without_update(leaf: Leaf) -> Leaf:
    """Return the leaf with the gradients as updates, so that no time is spent on the equation of the updates."""
    return leaf._replace(updates=leaf.grads)


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of two arrays after compressing their magnitudes."""
    x, y = (np.sign(array) * np.abs(array) ** COMPRESS for array in (a, b))
    if not (np.isfinite(x).all() and np.ptp(x) > 0 and np.ptp(y) > 0):
        return 0.0
    return abs(float(np.corrcoef(x.ravel(), y.ravel())[0, 1]))
