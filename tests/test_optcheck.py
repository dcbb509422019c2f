"""Correct optimizers match, wrong ones get a cause, and unknown ones stay unknown."""

import functools
import json
import re
import signal
import threading
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.example_libraries import optimizers as example
from optcheck_runs import LR, cause_ids, diagnosis, difference, observation, torch_of
from wrong_optimizers import adam, hat, step_function

from nnjax import optcheck, optim
from nnjax.optcheck.report.fixes import fixes
from nnjax.optcheck.rules.families import equations, neighbours, update_array, with_usual_values
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.update_rule import Formula, HyperParams
from nnjax.optcheck.search.fitting import Target, fit, reproduces
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.gradient_script import MAGNITUDES, STEPS, flatten, gradient_script, rule_inputs, second_script

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # candidates divide by zero, as they would


@pytest.fixture(autouse=True)
def usual_modes():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


# What libraries do ----------------------------------------------------------------------------------------------------

REAL = {
    "sgd": lambda: optax.sgd(LR),
    "momentum": lambda: optax.sgd(LR, 0.9),
    "nesterov": lambda: optax.sgd(LR, 0.9, nesterov=True),
    "identity": optax.identity,
    "optax.rmsprop": lambda: optax.rmsprop(LR),
    "optax.adagrad": lambda: optax.adagrad(LR),
    "optax.adadelta": lambda: optax.adadelta(LR),
    "optax.adam": lambda: optax.adam(LR),
    "optax.adamw": lambda: optax.adamw(LR),
    "optax.amsgrad": lambda: optax.amsgrad(LR),
    "optax.adamax": lambda: optax.adamax(LR),
    "optax.nadam": lambda: optax.nadam(LR),
    "optax.radam": lambda: optax.radam(LR),
    "optax.adabelief": lambda: optax.adabelief(LR),
    "optax.yogi": lambda: optax.yogi(LR),
    "optax.lion": lambda: optax.lion(LR),
    "optax.novograd": lambda: optax.novograd(LR),
    "optax.sign_sgd": lambda: optax.sign_sgd(LR),
    "optax.lamb": lambda: optax.lamb(LR),
    "optax.lars": lambda: optax.lars(LR),
    "optax.adan": lambda: optax.adan(LR),
    "optax.contrib.adopt": lambda: optax.contrib.adopt(LR),
    "optax.contrib.muon": lambda: optax.contrib.muon(LR),
    "optax.contrib.schedule_free_sgd": lambda: optax.contrib.schedule_free_sgd(LR),
    "optax.contrib.schedule_free_adamw": lambda: optax.contrib.schedule_free_adamw(LR),
    "optax.contrib.prodigy": lambda: optax.contrib.prodigy(1.0),
    "torch.sgd": lambda: torch_of("SGD"),
    "torch.sgd_momentum": lambda: torch_of("SGD", momentum=0.9),
    "torch.sgd_nesterov": lambda: torch_of("SGD", momentum=0.9, nesterov=True),
    "torch.rmsprop": lambda: torch_of("RMSprop"),
    "torch.rmsprop_centered": lambda: torch_of("RMSprop", centered=True),
    "torch.adagrad": lambda: torch_of("Adagrad"),
    "torch.adadelta": lambda: torch_of("Adadelta"),
    "torch.adam": lambda: torch_of("Adam"),
    "torch.adamw": lambda: torch_of("AdamW"),
    "torch.amsgrad": lambda: torch_of("Adam", amsgrad=True),
    "torch.adafactor": lambda: torch_of("Adafactor"),
    "torch.adamax": lambda: torch_of("Adamax"),
    "torch.radam": lambda: torch_of("RAdam"),
    "jax.example_libraries.sgd": lambda: example.sgd(LR),
    "jax.example_libraries.momentum": lambda: example.momentum(LR, 0.9),
    "jax.example_libraries.nesterov": lambda: example.nesterov(LR, 0.9),
    "jax.example_libraries.adagrad": lambda: example.adagrad(LR),
    "jax.example_libraries.rmsprop": lambda: example.rmsprop(LR),
    "jax.example_libraries.rmsprop_momentum": lambda: example.rmsprop_momentum(LR),
    "jax.example_libraries.adam": lambda: example.adam(LR),
    "jax.example_libraries.adamax": lambda: example.adamax(LR),
}


@pytest.mark.parametrize("name", REAL)
def test_forms_are_what_libraries_do(name):
    assert difference(REAL[name](), LIBRARY_RULES[name]) is None


def test_every_form_is_held_against_its_library():
    """But for Keras' and papers', which are not installed, those that keep a number in float32, and Sophia.

    It needs an objective, so the tests of named rules compare it.
    """
    others = {name for name in LIBRARY_RULES if not name.startswith(("keras.", "bert.", "paper."))}
    assert others - REAL.keys() == {"torch.nadam", "optax.adafactor", "torch.muon", "optax.contrib.sophia"}


class Torch:
    """torch.optim without its first argument."""

    def __getattr__(self, name):
        torch = pytest.importorskip("torch")
        return functools.partial(functools.partial, getattr(torch.optim, name))


def rows(sign):
    """The lines of a table in the documentation of nnjax.optim, in parts."""
    lines = [line.strip() for line in optim.__doc__.splitlines() if line.startswith("    ") and f" {sign} " in line]
    assert len(lines) > 10
    return lines


def written(text):
    """What is written there; a name of a formula as it is."""
    names = {
        "r": LR,
        "optax": optax,
        "torch": Torch(),
        "example": example,
        **{n: getattr(optim, n) for n in optim.__all__},
    }
    return text if text in LIBRARY_RULES else eval(text, names)


@pytest.mark.parametrize("row", rows("="))
def test_what_is_said_to_be_equal_is(row):
    first, *others = (written(part) for part in row.split(" = "))
    for other in others:
        assert difference(first, other) is None


@pytest.mark.parametrize("row", rows("≠"))
def test_what_is_said_to_differ_differs_in_that(row):
    both, _, causes = row.rpartition(": ")
    first, other = (written(part) for part in both.split(" ≠ "))
    why = diagnosis(first, other)
    assert [sorted(cause_ids(explanation)) for explanation in why.explanations] == [causes.split(", ")]


# The whole report -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adam", "adamw", "adagrad", "lion", "nadam", "sgd"])
def test_our_own_optimizers_match(name):
    optcheck.assert_matches(getattr(optim, name)(LR), f"optax.{name}")


def test_our_own_momenta_match():
    optcheck.assert_matches(optim.momentum(LR), "momentum")
    optcheck.assert_matches(optim.nesterov(LR), "nesterov")
    optcheck.assert_matches(optim.rmsprop(LR), "optax.rmsprop")


def test_a_report_says_what_and_why():
    report = optcheck.compare(optax.rmsprop(LR, eps_in_sqrt=False), "optax.rmsprop")
    assert not report.ok
    assert report.exit_code == 1
    assert [cause.id for cause in report.causes] == ["eps-outside"]
    text = str(report)
    for part in (
        "DIFFERENT: the candidate against optax.rmsprop",
        "first difference at step 1",
        "θ ← θ - λ g / (√v + ε)    ",
        "θ ← θ - λ g / √(v + ε)\n",
        "fix: or use as the reference: optax.rmsprop(0.001, eps_in_sqrt=False)  (checked: matches)",
        "impact: with gradients N(0, 1)",
        "not observed with these inputs: weight decay",
        "tolerance: |u - u'| ≤",
    ):
        assert part in text, part
    content = json.loads(report.to_json())
    schema = json.loads((Path(optcheck.__file__).parent / "report" / "schema.json").read_text())
    assert set(content) == set(schema["required"]) == set(schema["properties"])
    types = {"string": str, "boolean": bool, "number": float, "array": list, "object": dict, "null": type(None)}
    for key, content_schema in schema["properties"].items():
        names = content_schema.get("type", [])
        allowed = tuple(types[name] for name in ([names] if isinstance(names, str) else names)) or (str, int)
        assert isinstance(content[key], allowed), key
        for item in content[key] if names == "array" and "required" in content_schema["items"] else ():
            assert set(content_schema["items"]["required"]) <= set(item), key
    assert content["schema"] == "nnjax-optcheck-3"
    assert content["causes"][0][0]["place"] == "eps"
    assert content["divergence"]["step"] == 1
    assert [part["name"] for part in content["passes"]] == ["float64", "float32"]


def test_the_picture(tmp_path):
    report = optcheck.compare(optax.rmsprop(LR), "torch.rmsprop")
    figure = report.plot()
    headline, causes = (text.get_text().replace("\n", " ") for text in figure.texts)
    assert headline == str(report).splitlines()[0]
    assert causes.startswith(report.causes[0].candidate)
    figure.savefig(tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 10_000


def test_a_schedule_shows_where_the_rate_is():
    def keras(learning_rate, momentum):
        velocity = optax.chain(optax.scale_by_learning_rate(learning_rate), optax.trace(momentum))
        return optax.GradientTransformation(velocity.init, velocity.update)

    hparams = {"learning_rate": 0.5, "momentum": 0.9}
    report = optcheck.compare(keras, optax.sgd, hparams=hparams)
    assert [part.divergence is None for part in report.passes] == [True, True, False]
    assert [cause.id for cause in report.causes] == ["lr-in-velocity"]
    optcheck.assert_matches(keras, optax.sgd, hparams=hparams, allow=["lr-in-velocity"])
    with pytest.raises(AssertionError, match="inside the velocity"):
        optcheck.assert_matches(keras, optax.sgd, hparams=hparams, allow=["b1"])


def test_one_that_takes_numbers_only_is_compared_without_a_schedule():
    def mine(learning_rate):
        return adam(lambda m, v, t, *_: learning_rate * hat(m, 0.9, t) / (jnp.sqrt(hat(v, 0.999, t)) + 1e-8))

    report = optcheck.compare(mine, optax.adam, hparams={"learning_rate": 0.5})
    assert report.matches
    assert "an optimizer takes no schedule" in str(report)


def test_a_step_function_is_taken():
    report = optcheck.compare(step_function, "optax.adam")
    assert report.ok, str(report)
    assert report.candidate == "step_function"


class OnNumPy:
    """An optimizer as from-scratch repositories have it: it changes arrays in place."""

    def __init__(self, rate):
        self.rate, self.m = rate, None

    def step(self, params, grads):
        leaves = jax.tree.leaves(params)
        self.m = [np.zeros_like(p) for p in leaves] if self.m is None else self.m
        for p, m, g in zip(leaves, self.m, jax.tree.leaves(grads), strict=True):
            m *= 0.9  # noqa: PLW2901
            m += g  # noqa: PLW2901
            p -= self.rate * m  # noqa: PLW2901


class Frozen:
    """Keeps its moments on itself: right by hand, and silently wrong under jit."""

    def __init__(self, rate):
        self.rate, self.m = rate, None

    def step(self, params, grads):
        m = jax.tree.map(jnp.zeros_like, params) if self.m is None else self.m
        self.m = jax.tree.map(lambda m, g: 0.9 * m + g, m, grads)
        return jax.tree.map(lambda p, m: p - self.rate * m, params, self.m)


def test_objects_are_taken():
    report = optcheck.compare(OnNumPy(LR), "momentum")
    assert report.matches, str(report)
    assert not report.broken


def test_an_object_with_a_state_of_its_own_is_right_and_runs_eagerly_only():
    report = optcheck.compare(Frozen(LR), "momentum")
    assert report.ok
    assert report.exit_code == 0
    assert [found.rule for found in report.violations] == ["runs eagerly only"]
    optcheck.assert_matches(Frozen(LR), "momentum")


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (optax.rmsprop(LR), ["optax.rmsprop", "√(v + ε)", "β₂ = 0.9, ε = 1e-08"]),
        (optax.yogi(1e-2), ["optax.yogi", "λ = 0.01", "v₀ = 1e-06"]),
    ],
)
def test_identify(optimizer, words):
    text = optcheck.identify(optimizer)
    assert all(word in text for word in words), text


# The search -----------------------------------------------------------------------------------------------------------


def target_of(formula, inputs=None):
    inputs = inputs or rule_inputs(gradient_script())
    updates = update_array(formula, inputs)
    return Target(updates, 1e-9 * np.abs(updates), inputs)


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("optax.adam", HyperParams(3e-3, 0.8, 0.95, 1e-5)),
        ("optax.adam", HyperParams(1e-1, 0.95, 0.9999, 1e-12)),
        ("optax.adamw", HyperParams(1e-2, 0.9, 0.99, 1e-3, weight_decay=0.3)),
        ("optax.rmsprop", HyperParams(1e-2, b2=0.7, eps=1e-4)),
        ("momentum", HyperParams(0.5, momentum=0.3)),
        ("optax.lion", HyperParams(1e-4, 0.95, 0.98, weight_decay=0.1)),
    ],
)
def test_hyper_parameters_are_recovered(name, hyper):
    rule = LIBRARY_RULES[name].rule
    target = target_of(Formula(rule, hyper))
    names = [field for field in hyper._fields if getattr(hyper, field) != getattr(HyperParams(), field)]
    start = HyperParams(weight_decay=1e-2 if rule.decay != "none" else 0.0)
    found = fit(Formula(rule, start), target, names)
    assert reproduces(found, target)
    for field in names:
        np.testing.assert_allclose(getattr(found.hyper, field), getattr(hyper, field), rtol=1e-6)


SAME = {  # choices beside each of these that make the same updates, whatever the gradients
    "optax.adamw": {
        ("first_correction-t + 1, second_correction-t + 1", "counter-ahead"),
        ("first_correction-constant, second_correction-constant", "counter-stuck"),
        (
            "first_correction-linear, second_correction-linear",
            "second_correction-linear",
        ),  # both divide by nothing sound
    },
    "optax.rmsprop": {
        ("second-trace", "second_correction-constant"),
    },
    "momentum": set(),
}


@pytest.mark.parametrize("name", SAME)
def test_which_rules_cannot_be_told_apart(name):
    rule, hyper = LIBRARY_RULES[name]
    hyper = hyper._replace(b1=0.8)  # not RMSProp's b2
    inputs = rule_inputs(second_script(scheduled=True))
    rules = {", ".join(f"{e.place}-{e.new}" for e in edits): other for edits, other in neighbours(rule)} | {name: rule}
    formulas = {key: with_usual_values(other, hyper) for key, other in rules.items()}
    same = set()
    for key, formula in formulas.items():
        target = target_of(formula, inputs)
        same |= {frozenset((key, other)) for other in formulas if other != key and reproduces(formulas[other], target)}
    assert same == {frozenset(pair) for pair in SAME[name]}


def test_equations_of_all_rules_can_be_written():
    for name, (rule, hyper) in LIBRARY_RULES.items():
        lines = equations(Formula(rule, hyper))
        assert sum(line.startswith(("θ ←", "θ = y ←")) for line in lines) == 1, name
        for _, other in neighbours(rule):
            assert equations(Formula(other, hyper))


def test_the_script_has_every_magnitude_and_kind_of_leaf():
    script = gradient_script()
    grads = np.abs(flatten(script.grads))
    assert len(grads) == STEPS == 24
    for size in MAGNITUDES:
        assert np.isclose(grads, size, atol=0).any()
    assert grads[grads > 0].min() >= 1e-16
    assert sorted({leaf.ndim - 1 for leaf in jax.tree.leaves(script.grads)}) == [0, 1, 2, 4]
    zero, normal = (flatten(script.params[half]) for half in ("zero", "normal"))
    assert not zero.any()
    assert normal.std() == pytest.approx(1, abs=0.1)


# Mistakes -------------------------------------------------------------------------------------------------------------


def raising():
    def update(grads, state, params):
        raise RuntimeError("the learning rate is missing")

    return (lambda params: ()), update


class Locked:
    def __init__(self):
        self.lock = threading.Lock()

    def step(self, params, grads):
        return params


MISTAKES = {
    "a number": (lambda: optcheck.compare(3, "optax.adam"), "int is not an optimizer; expected an optax.Gradient"),
    "a class": (lambda: optcheck.compare(Frozen, "momentum"), r"Frozen\(rate\) is a class; pass an instance, Frozen"),
    "a factory": (lambda: optcheck.compare(optax.adam, "optax.adam"), "call it, or pass hparams="),
    "four": (lambda: optcheck.compare((len,) * 4, "optax.adam"), "4 functions"),
    "no such reference": (lambda: optcheck.compare(optim.sgd(LR), "optax.addam"), "unknown reference 'optax.addam'"),
    "a formula": (lambda: optcheck.compare("keras.adam", "optax.adam"), "names a formula; pass it as the reference"),
    "kind": (lambda: optcheck.compare(optim.sgd(LR), "sgd", kind="pear"), "unknown kind 'pear'"),
    "arguments": (
        lambda: optcheck.compare(optax.adam, "optax.adam", hparams={"rate": 1}), "adam cannot be called with rate"
    ),
    "data": (lambda: optcheck.compare(lambda params, grads, batch: params, "sgd"), r"or data \(batch\)"),
    "numbers": (lambda: optcheck.compare(lambda p, g, m, beta: (p, m), "sgd"), r"partial\(.*beta=…\)"),
    "no triple": (lambda: optcheck.compare(optax.sgd(LR), "sgd", kind="triple"), "needs 3 functions"),
    "no copy": (lambda: optcheck.compare(Locked(), "sgd"), "which cannot be copied"),
    "no time": (lambda: optcheck.compare(optax.sgd(LR), "sgd", seconds=-1), "seconds must be in"),
    "no hparams": (lambda: optcheck.compare(optax.sgd, "sgd", hparams={}), "hparams must be a dict"),
    "nothing to step": (
        lambda: optcheck.compare(type("A", (), {"step": lambda self: 0})(), "sgd"), r"no way to call A.step\(\)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    call, message = MISTAKES[name]
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_what_the_candidate_raises_comes_through():
    with pytest.raises(RuntimeError, match="the learning rate is missing"):
        optcheck.compare(raising(), "sgd")


def test_what_never_comes_back_is_interrupted():
    def update(grads, state, params):
        while True:
            time.sleep(0.01)

    began = time.monotonic()
    with pytest.raises(optcheck.TimeLimitError, match="did not end within 2 s"):
        optcheck.compare(((lambda params: ()), update), "sgd", seconds=2)
    assert time.monotonic() - began < 20


def test_optimizers_that_call_a_closure_get_an_objective():
    assert optcheck.compare(torch_of("LBFGS"), torch_of("LBFGS")).ok
    assert not optcheck.compare(torch_of("LBFGS"), torch_of("LBFGS", history_size=1), max_fits=10).ok


# Layouts --------------------------------------------------------------------------------------------------------------


class OnADict(NamedTuple):
    """Takes `params["W1"]` and so on, as many notebooks do."""

    velocity: dict

    def update(self, params, grads):
        for name in params:
            b = self.velocity.setdefault(name, np.zeros_like(params[name]))
            b[...] = 0.9 * b + grads[name]
            params[name] -= LR * b


class OnAList:
    def __init__(self):
        self.velocity = None

    def step(self, params, grads):
        self.velocity = self.velocity or [0.0 for _ in params]
        self.velocity = [0.9 * b + g for b, g in zip(self.velocity, grads, strict=True)]
        return [p - LR * b for p, b in zip(params, self.velocity, strict=True)]


def on_an_array(params, grads, b):
    b = 0.9 * (0.0 if b is None else b) + grads
    return params - LR * b, b


class ThatReturnsUpdates:
    def __init__(self):
        self.b = 0.0

    def update(self, grads, params):
        b = jax.tree.map(jnp.zeros_like, grads) if isinstance(self.b, float) else self.b
        self.b = jax.tree.map(lambda b, g: 0.9 * b + g, b, grads)
        return jax.tree.map(lambda b: -LR * b, self.b)


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        (OnADict({}), "OnADict.update(params, grads), on a flat dict"),
        (OnAList(), "OnAList.step(params, grads), on a list"),
        (on_an_array, "on_an_array(params, grads, state), on one array, all leaves concatenated"),
        (
            ThatReturnsUpdates(),
            "ThatReturnsUpdates.update(grads, params); it returns updates, which are added to the parameters",
        ),
    ],
)
def test_parameters_are_laid_out_as_the_optimizer_takes_them(optimizer, name):
    report = optcheck.compare(optimizer, "momentum", init=None)
    assert report.matches, str(report)
    assert report.called == name
    assert not report.broken, str(report)


def test_a_factory_is_no_step_function():
    with pytest.raises(optcheck.NotAnOptimizerError, match="if it makes an optimizer, call it"):
        optcheck.compare(lambda learning_rate, b1=0.9, b2=0.999: optax.adam(learning_rate, b1, b2), "optax.adam")


# What is no match and no difference -----------------------------------------------------------------------------------


def stateless(rule):
    return optax.GradientTransformation(lambda params: (), lambda grads, state, params=None: rule(grads, state))


RETURNED = {
    "a part": (lambda g, s: ({name: g[name] for name in list(g)[:1]}, s), "structure"),
    "leaves": (lambda g, s: (jax.tree.leaves(g), s), "structure"),
    "sums": (lambda g, s: (jax.tree.map(jnp.sum, g), s), r"shape \(\)"),
    "flat": (lambda g, s: (jax.tree.map(jnp.ravel, g), s), r"shape \(6,\)"),
    "complex": (lambda g, s: (jax.tree.map(lambda leaf: leaf * 1j, g), s), "complex"),
    "no state": (lambda g, s: g, r"expected \(updates, state\)"),
    "nothing": (lambda g, s: None, "got None"),
}


@pytest.mark.parametrize("name", RETURNED)
def test_what_is_returned_must_be_updates(name):
    rule, message = RETURNED[name]
    report = optcheck.compare(stateless(rule), optax.sgd(LR))
    assert report.exit_code == 3
    assert not report.ok
    assert "BREAKS THE CONTRACT" in str(report)
    assert re.search(message, str(report)), str(report)
    assert json.loads(report.to_json())["exit_code"] == 3
    with pytest.raises(ValueError, match="nothing to plot"):
        report.plot()


def test_a_match_of_nothing_says_so():
    nan = stateless(lambda g, s: (jax.tree.map(lambda leaf: leaf * jnp.nan, g), s))
    assert optcheck.compare(nan, nan).exit_code == 3
    assert "zeros from both" in str(optcheck.compare(optax.set_to_zero(), optax.set_to_zero()))
    assert "all updates of the candidate are zero" in str(optcheck.compare(optax.set_to_zero(), optax.sgd(LR)))


def test_an_unknown_reference_is_no_excuse():
    with pytest.raises(AssertionError, match="cause unknown"):
        optcheck.assert_matches(optax.sgd(LR, 0.9), optax.contrib.madgrad(LR), max_fits=120)


def test_a_match_says_what_was_not_observed():
    report = optcheck.compare(optax.sgd(LR, 0.9), optax.sgd(LR, 0.9))
    assert any("inside the velocity" in hidden for hidden in report.not_observed)


def test_a_known_optimizer_is_preferred_to_a_strange_one():
    why = diagnosis(optax.sgd(LR, 0.8, nesterov=True), optax.sgd(LR))
    assert cause_ids(why.explanations[0]) == {"velocity-trace", "nesterov-standard", "momentum"}


def test_the_reference_with_other_numbers_is_not_called_by_another_name():
    assert diagnosis(optax.sgd(LR, 0.8), "optax.sgd").explanations[0].library == "momentum"
    assert diagnosis(optax.sgd(LR, 0.8), optax.sgd(LR, 0.9)).explanations[0].library == ""


FIXES = {  # candidate, reference, the fix
    "numbers and a choice": (
        optax.adam(LR, b1=0.8, eps=0.0, eps_root=1e-8), "optax.adam",
        "optax.adam(0.001, b1=0.8, eps=0, eps_root=1e-08)",
    ),
    "decay on matrices only": (
        optax.adamw(LR, weight_decay=0.01, mask=lambda p: jax.tree.map(lambda leaf: leaf.ndim > 1, p)), "optax.adam",
        "optax.adamw(0.001, weight_decay=0.01, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params))",
    ),
    "clipping": (optax.chain(optax.clip(0.5), optax.sgd(LR)), "sgd", "optax.chain(optax.clip(0.5), optax.sgd(0.001))"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIXES)
def test_a_fix_is_tried_before_it_is_printed(name):
    candidate, reference, fix = FIXES[name]
    both = observation(candidate, reference)
    why = diagnosis(candidate, reference)
    last = fixes(why, both, torch=False, deadline=Deadline(None))[-1]
    assert last == f"or use as the reference: {fix}  (checked: matches)"
    assert difference(candidate, eval(fix)) is None


def test_a_fix_that_does_not_match_is_not_printed():
    both = observation(optax.rmsprop(LR, eps_in_sqrt=False), "optax.rmsprop")
    why = diagnosis(optax.rmsprop(LR), "sgd")  # of a different candidate
    assert not any("checked" in fix for fix in fixes(why, both, torch=False, deadline=Deadline(None)))


@pytest.mark.parametrize(("allow", "message"), [("eps-inside", "must be a list"), (["eps-insid"], "eps-inside")])
def test_what_is_allowed_must_be_a_cause(allow, message):
    with pytest.raises(ValueError, match=message):
        optcheck.assert_matches(optax.sgd(LR), optax.sgd(LR), allow=allow)


def test_what_catches_everything_is_interrupted_too():
    def rule(grads, state):
        while True:
            try:
                time.sleep(0.05)
            except Exception:
                continue

    began = time.monotonic()
    with pytest.raises(optcheck.TimeLimitError, match="did not end within 1 s"):
        optcheck.compare(stateless(rule), optax.sgd(LR), seconds=1)
    assert time.monotonic() - began < 20


def test_somebody_elses_alarm_is_left_as_it_was():
    handler = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 100)
        optcheck.compare(optax.sgd(LR), optax.sgd(LR))
        left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        assert 10 < left < 100
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def radam(rate, b1=0.9, b2=0.999):
    """RAdam with a counter of JAX: in float32, ρ loses digits."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return jnp.zeros((), jnp.int32), zeros, zeros

    def update(grads, state, params=None):
        t, m, v = state
        t = t + 1
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, grads)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, grads)
        limit = 2 / (1 - b2) - 1
        rho = limit - 2 * t * b2**t / (1 - b2**t)
        r = jnp.sqrt(jnp.maximum((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho), 0.0))

        def step(m, v):
            m_hat = m / (1 - b1**t)
            scaled = r * m_hat * jnp.sqrt(1 - b2**t) / (jnp.sqrt(v) + 1e-8)
            return (-rate * jnp.where(rho > 5, scaled, m_hat)).astype(m.dtype)

        return jax.tree.map(step, m, v), (t, m, v)

    return init, update


class ExactNAdam:
    """NAdam whose product of momentum coefficients is not rounded to float32, unlike PyTorch's."""

    def __init__(self):
        self.m, self.v, self.t, self.product = {}, {}, 0, 1.0

    def step(self, params, grads):
        self.t += 1
        mu, after = (0.9 * (1 - 0.5 * 0.96 ** (t * 0.004)) for t in (self.t, self.t + 1))
        self.product *= mu
        for name, g in grads.items():
            self.m[name] = 0.9 * self.m.get(name, 0) + 0.1 * g
            self.v[name] = 0.999 * self.v.get(name, 0) + 0.001 * g * g
            ahead = after * self.m[name] / (1 - self.product * after) + (1 - mu) * g / (1 - self.product)
            params[name] -= 2e-3 * ahead / (np.sqrt(self.v[name] / (1 - 0.999**self.t)) + 1e-8)
        return params


def test_an_exact_nadam_matches_that_of_pytorch():
    torch = pytest.importorskip("torch")
    assert optcheck.compare(ExactNAdam(), torch.optim.NAdam).ok
    wrong = optcheck.compare(ExactNAdam(), functools.partial(torch.optim.NAdam, eps=1e-6))
    assert {cause.id for cause in wrong.causes} == {"eps", "product_storage-raw"}


def test_rounding_of_the_candidate_in_float32_is_a_note():
    report = optcheck.compare(radam(1e-3), "torch.radam")
    assert report.ok
    [note] = report.violations
    assert (note.rule, note.severity) == ("float32 rounding", "note")
    assert re.fullmatch(r"updates that rounding changes by up to 0\.\d+ %", note.got)


def test_numbers_that_float32_does_not_have_are_no_rounding():
    def update(grads, state, params=None):
        return jax.tree.map(lambda g: -1e-3 * g / (jnp.abs(g) + jnp.asarray(1e-50, g.dtype)), grads), state

    def reference(grads, state, params=None):
        return jax.tree.map(lambda g: jnp.where(g == 0, 0.0, -1e-3 * jnp.sign(g)).astype(g.dtype), grads), state

    report = optcheck.compare((lambda params: (), update), (lambda params: (), reference))
    assert not report.ok
    assert "all updates are equal in float64" in str(report)
    assert report.exit_code == 2
