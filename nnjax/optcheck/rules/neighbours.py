"""List the neighbours of an update rule, which differ from it in one choice."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nnjax.optcheck.rules.rule_choices import CHOICES, USUAL_VALUES
from nnjax.optcheck.rules.update_rule import GRADIENT_DECAY, LAMB, LION, WITH_EPS, Formula, HyperParams, UpdateRule

DECAYING = ("ema", "ema from first", "trace", "belief", "absolute", "m squared")  # second moments that decay as β₂ v
BOTH_MOMENTS = {  # usually chosen together: the same change to both moments counts as one mistake, not two
    "first_correction": "second_correction",
    "first_lag": "second_lag",
    "first_storage": "second_storage",
    "eps": "rescaling_eps",
}


NEGLIGIBLE = 1e-6  # a fitted decay rate below is 0
WITHOUT_RATE = (  # moments without a decay rate
    "none", "mean", "sum", "absolute sum", "largest square", "largest ever", "largest ever with eps",
)  # fmt: skip
DECREASING = (  # schedules with a κ
    "inverse time", "inverse root time", "compounding", "exponential", "warm-up", "linear", "cosine", "stepwise",
)  # fmt: skip
READ = ("current", "next", "previous")  # positions at which a schedule that is passed as a function is read
FEATURES = (
    "rounding", "accumulation", "variance", "centre", "rectification", "rescaling", "trust", "velocity",
    "velocity_storage",
)  # fmt: skip
RARE: dict[str, tuple[str, ...]] = {  # choices that are intended, or rare as one of three mistakes
    "clip": (
        "squared global norm", "scaled leaf norm", "scaled global norm", "unit leaf norm", "unit global norm",
        "step value", "step global norm", "step leaf norm",
    ),
    "counter": ("per leaf", "per leaf and step", "double"),
    "decay": ("l2 and decoupled", "after trust", "in velocity", "of m"),
    "eps": ("in state", "in state only", "inside before correction", "added to the step"),
    "first": (
        "mean", "v for m", "with power", "gradient", "ema from first", "precedence", "without b1",
        "minus", "sum", "both", "both average", *LION,
    ),
    "first_correction": ("root", "another rate", "squared", "subtracted", "compounding"),
    "maximum": ("minimum", "corrected twice", "smallest", "smallest corrected"),
    "nesterov": ("weighted", "swapped", "corrected"),
    "numerator": ("nadam", "plus gradient"),
    "rate_position": ("twice",),
    "root": ("twice", "multiplied"),
    "schedule": (
        "next", "warm-up", "linear", "cosine", "previous", "stepwise", "stepwise from 1", "inverse time from 1",
        "inverse root time from 1", "exponential from 1", "compounding", "compounding from 1", "corrected",
    ),
    "second": (
        "centered", "largest", "largest with eps", "yogi", "yogi wrong sign", "mean", "belief old m", "m for v",
        "old m for v", "cubed", "product", "with power", "largest square", "twice the gradient", "largest with sign",
        "belief absolute", "belief corrected", "belief plus", "centered old mean", "centered plus", "largest of m",
        "largest of m with eps", "largest weighted", "largest weighted with eps", "largest ever",
        "largest ever with eps", "ema from first", "precedence", "without b2", "both", "both average",
        "squared weight", "minus",
    ),
    "second_correction": ("squared", "another rate", "subtracted", "count", "compounding"),
    "second_scope": ("global norm", "leaf norm", "leaf mean"),
    "second_storage": ("root", "denominator"),
    "sign": ("tanh",),
    "velocity": ("precedence", "both", "before division"),
}  # fmt: skip


class Edit(NamedTuple):
    """A change to one choice of a rule."""

    place: str  # a field of the rule, or `families.RULE`
    old: str
    new: str


class Neighbour(NamedTuple):
    """A rule and the edits that lead to it from the original rule."""

    edits: tuple[Edit, ...]
    rule: UpdateRule


def is_rare(edit: Edit) -> bool:
    """Return True if a choice adds a feature or a number format, which is rarely one of three mistakes."""
    added = edit.place in FEATURES and edit.old in ("none", "raw")
    return added or "float16" in edit.new or edit.new in RARE.get(edit.place, ())


def is_relevant(rule: UpdateRule, place: str) -> bool:
    """Return True if the choice at a place affects the updates of a rule and is a plausible mistake."""
    return _relevance(rule).get(place, True)


def _relevance(rule: UpdateRule) -> dict[str, bool]:
    """Return whether each place affects the updates of a rule; places that always do are missing."""
    first = rule.first != "none"
    second = rule.second != "none"
    has_size = rule.sign != "sign" or second
    velocity = rule.velocity not in ("none", "before division")
    corrected = {rule.first_correction, rule.second_correction} - {"none", "constant"}
    return {
        "variance": rule.variance != "none",  # not a plausible mistake in rules other than MARS
        "first_correction": first and has_size and rule.numerator != "nadam",
        "second": has_size,
        "first_lag": first and rule.first not in LION,
        "first_storage": first,
        "second_correction": second,
        "second_lag": second,
        "second_scope": rule.second in ("ema", "ema from first", "trace", "sum", "mean"),
        "second_storage": second,
        "maximum": second,
        "root": second,
        "eps": second,
        "numerator": first and rule.first not in LION,
        "ahead_factor": rule.numerator == "nadam",
        "ahead_correction": rule.numerator == "nadam",
        "gradient_weight": rule.numerator == "nadam" and rule.ahead_factor != "swapped",
        "gradient_correction": rule.numerator == "nadam" and rule.gradient_weight != "none",
        "momentum_schedule": rule.numerator == "nadam",
        "product_storage": rule.numerator == "nadam",
        "rectification": second and rule.first_correction != "none",
        "rho": rule.rectification != "none",
        "rectifier": rule.rectification != "none",
        "below": rule.rectification != "none",
        "rescaling": second,
        "rescaling_average": rule.rescaling != "none",
        "rescaling_eps": rule.rescaling != "none",
        "rescaling_lag": rule.rescaling != "none",
        "velocity_storage": velocity,
        "rate_position": velocity,
        "nesterov": velocity,
        "counter": bool(corrected)
        or rule.rectification != "none"
        or rule.numerator == "nadam"
        or {"mean", "with power"} & {rule.first, rule.second} != set(),
    }


def without_idle_choices(rule: UpdateRule) -> UpdateRule:
    """Return the rule with the default at each place that does not affect its updates."""
    default = UpdateRule()
    while True:
        idle = [place for place, relevant in _relevance(rule).items() if not relevant]
        tidy = rule._replace(**{place: getattr(default, place) for place in idle})
        if tidy == rule:
            return rule
        rule = tidy


def _duplicates(rule: UpdateRule) -> set[tuple[str, str]]:
    """Return the choices that have no effect on a rule, or the same effect as a different choice."""
    velocity = rule.velocity != "none"
    one_moment = "none" in (rule.first, rule.second)
    no_correction = rule.second_correction == "none"
    no_first_correction = rule.first_correction == "none"
    is_gradient = (rule.first, rule.second, rule.velocity, rule.sign) == ("none",) * 4
    duplicates = {
        **{
            ("clip", f"step {name}"): is_gradient and rule.decay not in GRADIENT_DECAY
            for name in ("value", "global norm", "leaf norm")
        },
        ("first_storage", "bfloat16"): rule.first not in ("ema", "trace"),
        ("first_storage", "float16"): rule.first not in ("ema", "trace"),
        ("second_storage", "bfloat16"): rule.second not in DECAYING,
        ("second_storage", "float16"): rule.second not in DECAYING,
        **{
            ("clip", choice): "global" not in rule.clip  # clipping by a wrong norm is a mistake only if there is a norm
            for choice in ("squared global norm", "global norm of sizes", "global 1-norm", "global sum of norms")
        },
        ("first_storage", "corrected"): rule.first_correction == "none",
        ("second_storage", "corrected"): no_correction,
        ("first", "another rate"): no_first_correction,  # the same as a different β₁
        ("first", "v for m"): rule.second == "none",
        ("first", "gradient"): no_first_correction,
        ("first", "with schedule"): rule.numerator != "nadam",
        ("second", "another rate"): no_correction,  # the same as a different β₂
        ("numerator", "lookahead without correction"): no_first_correction,
        ("first_correction", "swapped"): one_moment,
        ("second_correction", "swapped"): one_moment,
        ("maximum", "raw"): no_correction,
        ("below", "raw m"): no_first_correction,
        ("rectifier", "raw m"): no_first_correction,
        **{("first", choice): rule.first not in LION for choice in LION if choice != "lion"},
        ("first", "minus"): rule.numerator == "m" and "belief" not in rule.second,  # the same as the wrong direction
        ("first", "sum"): rule.first == "none",  # the same as accumulated gradients
        ("first", "both"): rule.first == "none",
        # without an average, the same as "both" with a different learning rate
        ("first", "both average"): rule.first not in ("ema", "both average"),
        ("second", "both average"): rule.second not in ("ema", "both average"),
        ("second", "yogi wrong sign"): rule.second != "yogi",
        # instead of a schedule that the optimizer contains, the same as "current"
        **{("schedule", choice): rule.schedule not in READ for choice in READ if choice != "current"},
        ("schedule", "corrected"): one_moment or no_correction or no_first_correction,
        ("second", "without b2"): rule.second == "sum",  # the same as a different learning rate
        ("second_correction", "count"): rule.counter == "stuck" or rule.second in ("none", "sum", "mean"),
        ("second_storage", "denominator"): rule.eps.startswith("none") and no_correction,  # the same as "root"
        ("velocity", "before division"): rule.first != "none" or rule.second == "none",
        ("nesterov", "without gradient"): rule.nesterov == "none",  # the same as a different learning rate
        ("velocity_storage", "look-ahead"): rule.nesterov == "none",
        **{("maximum", choice): no_correction for choice in ("corrected twice", "smallest corrected")},
        ("decay", "of m"): rule.first == "none",
        ("eps", "before correction"): no_correction,
        ("eps", "inside before correction"): no_correction,
        ("eps", "floor"): rule.second in WITH_EPS,
        # without a maximum that decays, the same as "largest square"
        **{
            ("second", choice): not rule.second.startswith("largest") or rule.second == "largest square"
            for choice in ("largest ever", "largest ever with eps")
        },
        # the maximum of max(β₂ v, |g|) is max(v, |g|), "largest ever"
        ("maximum", "in v"): rule.second.startswith("largest"),
        ("maximum", "corrected"): rule.second.startswith("largest") and no_correction,
        ("decay", "l2 in m"): one_moment,
        ("decay", "l2 in v"): one_moment,
        ("decay", "in velocity"): not velocity or (one_moment and rule.first == rule.second),
        ("decay", "preconditioned"): rule.second == "none" and rule.sign == "none",
        ("second", "belief"): rule.first == "none",  # m is g, so g - m is 0
        ("second", "belief absolute"): rule.first == "none",
        ("second", "belief corrected"): "belief" not in rule.second or no_first_correction,
        ("second", "m squared"): rule.first == "none",
        ("second", "product"): rule.first == "none",
        ("second", "largest of m"): rule.first == "none",
        ("second", "largest weighted with eps"): not rule.second.startswith("largest"),
        ("second", "largest of m with eps"): rule.first == "none" or not rule.second.startswith("largest"),
        ("second", "m for v"): rule.first == "none",
        ("second", "old m for v"): rule.first == "none",
        ("second", "with b1"): rule.first == "none",
        ("second", "mixed"): rule.first == "none",
        ("rescaling", "adadelta without root"): rule.rescaling == "none",
        ("rescaling_eps", "outside"): rule.rescaling == "adadelta without root",
        ("rescaling_lag", "none"): rule.rescaling_average == "none",
        ("decay", "after trust"): rule.trust not in LAMB,
        **{("trust", trust): rule.trust not in LAMB for trust in LAMB if trust != "lamb"},
        ("trust", "lamb"): rule.decay != "decoupled" and rule.second == "none",  # the same as LARS
        ("trust", "lars"): rule.decay == "none" and rule.second != "none",
    }
    return {choice for choice, is_duplicate in duplicates.items() if is_duplicate}


def is_duplicate(edit: Edit, rule: UpdateRule) -> bool:
    """Return True if a choice has no effect on a rule, or the same effect as a different choice."""
    return (edit.place, edit.new) in _duplicates(rule)


def is_redundant(formula: Formula) -> bool:
    """Return True if a choice has no effect on the rule, or only the effect of its number.

    So has a dampening of 0, or "another rate" that is 0 or the rate that it replaces.
    """
    rule, hyper = formula
    if "dampened" in rule.velocity and hyper.dampening == 0:
        return True
    rates = {"first": hyper.b1, "first_correction": hyper.b1, "second": hyper.b2, "second_correction": hyper.b2}
    return not _duplicates(rule).isdisjoint(zip(rule._fields, rule, strict=True)) or any(
        getattr(rule, place) == "another rate" and (hyper.b3 == rate or hyper.b3 < NEGLIGIBLE)
        for place, rate in rates.items()
    )


def _has_rate(correction: str) -> bool:
    """Return True if a bias correction depends on the decay rate of its moment."""
    return correction not in ("none", "count")


def hyper_names(rule: UpdateRule) -> list[str]:
    """Return the names of hyper-parameters that affect a rule, except those that are usually zero."""
    second = rule.second not in WITHOUT_RATE or (rule.second != "none" and _has_rate(rule.second_correction))
    names = {
        "learning_rate": True,
        "b1": rule.first not in (*WITHOUT_RATE, "with b2")
        or (rule.first != "none" and (_has_rate(rule.first_correction) or rule.numerator != "m"))
        or rule.second in ("with b1", "mixed"),
        "b2": second or rule.rescaling != "none" or rule.first in (*LION, "with b2", "mixed"),
        "eps": (rule.second != "none" and (not rule.eps.startswith("none") or rule.second in WITH_EPS))
        or rule.rescaling != "none"
        or "unit" in rule.clip,
        "momentum": rule.velocity != "none",
        "dampening": "dampened" in rule.velocity,
        "weight_decay": rule.decay != "none",
        "clip": rule.clip != "none" and "unit" not in rule.clip,
        "trust": rule.trust == "lars",
        "gamma": rule.variance != "none",
        "b3": "another rate" in (rule.first, rule.first_correction, rule.second, rule.second_correction),
        "rate_decay": rule.schedule.partition(" from 1")[0] in DECREASING,
        "period": rule.schedule.startswith("stepwise"),
    }
    return [name for name, relevant in names.items() if relevant]


def neighbours(rule: UpdateRule) -> Iterator[Neighbour]:
    """Yield all rules that differ from this one in one choice, or in the same choice for both moments."""
    relevance, duplicates = _relevance(rule), _duplicates(rule)
    for place, choices in CHOICES.items():
        if not relevance.get(place, True):
            continue
        old = getattr(rule, place)
        for new in choices:
            if new == old or (place, new) in duplicates:
                continue
            edit, twin = Edit(place, old, new), BOTH_MOMENTS.get(place, "")
            if relevance.get(twin, True) and new in CHOICES.get(twin, {}) and new != getattr(rule, twin):
                edits = (edit, Edit(twin, getattr(rule, twin), new))
                yield Neighbour(edits, rule._replace(**{place: new, twin: new}))
            yield Neighbour((edit,), rule._replace(**{place: new}))


def with_usual_values(rule: UpdateRule, hyper: HyperParams) -> Formula:
    """Return the rule with these hyper-parameters; usual values replace those that are zero or infinite."""
    missing = {
        name: USUAL_VALUES[name]
        for name in hyper_names(rule)
        if name in USUAL_VALUES and (getattr(hyper, name) == 0 or not np.isfinite(getattr(hyper, name)))
    }
    return Formula(rule, hyper._replace(**missing))


def edits_between(rule: UpdateRule, target: UpdateRule) -> list[Edit]:
    """Return the edits that turn a rule into a target and affect at least one of them."""
    return [
        Edit(place, getattr(rule, place), getattr(target, place))
        for place in CHOICES
        if getattr(rule, place) != getattr(target, place) and (is_relevant(rule, place) or is_relevant(target, place))
    ]
