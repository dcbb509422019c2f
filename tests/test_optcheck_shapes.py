"""Optimizers that recognise arrays by `id`, take a model, or are generators; each is accepted, or refused with code."""

import functools
import sys

import jax
import numpy as np
import optax
import pytest
from optcheck_runs import LR, difference, torch_of

from nnjax import optcheck
from nnjax.optcheck.calling.adapters import adapt
from nnjax.optcheck.rules.families import update_array
from nnjax.optcheck.rules.library_calls import torch_call
from nnjax.optcheck.rules.library_rules import ADAM, LIBRARY_RULES
from nnjax.optcheck.rules.update_rule import Formula, HyperParams
from nnjax.optcheck.search import by_dimensions
from nnjax.optcheck.search.budget import Attempt, Budget
from nnjax.optcheck.search.fitting import Target, reproduces
from nnjax.optcheck.trace.gradient_script import gradient_script, rule_inputs


@pytest.fixture(autouse=True)
def usual_modes():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class KeyedById:
    def __init__(self):
        self.b = {}

    def step(self, params, grads):
        self.b = self.b or {id(p): 0.0 for p in params}
        for p, g in zip(params, grads, strict=True):
            self.b[id(p)] = 0.9 * self.b[id(p)] + g
            p -= LR * self.b[id(p)]  # noqa: PLW2901


class LosesById:
    def __init__(self):
        self.b = {}

    def step(self, p, g):
        self.b[id(p)] = 0.9 * self.b.get(id(p), 0.0) + g
        return p - LR * self.b[id(p)]


class OfParameters:
    def __init__(self, params, lr):
        self.params, self.lr, self.b = list(params), lr, {}

    def step(self):
        for p in self.params:
            self.b[id(p)] = 0.9 * self.b.get(id(p), 0.0) + p.grad
            p.data -= self.lr * self.b[id(p)]


class OfDicts:
    def __init__(self, model, lr):
        self.model, self.lr, self.b = model, lr, {}

    def step(self):
        for name, g in self.model.grads.items():
            self.b[name] = 0.9 * self.b.get(name, 0.0) + g
            self.model.params[name] = self.model.params[name] - self.lr * self.b[name]


class OfLists:
    def __init__(self, model, lr):
        self.model, self.lr, self.b = model, lr, []

    def step(self):
        params, grads = self.model.params, self.model.grads
        self.b = self.b or [np.zeros_like(p) for p in params]
        for i in range(len(params)):
            self.b[i] = 0.9 * self.b[i] + grads[i]
            params[i] -= self.lr * self.b[i]


class OfLayers:
    def __init__(self, model, lr):
        self.model, self.lr, self.b = model, lr, {}

    def step(self):
        for i, layer in enumerate(self.model.layers):
            for name in ("W", "b"):
                self.b[i, name] = 0.9 * self.b.get((i, name), 0.0) + getattr(layer, "d" + name)
                setattr(layer, name, getattr(layer, name) - self.lr * self.b[i, name])


def receives(params):
    b = 0.0
    while True:
        grads = yield params
        b = 0.9 * b + grads
        params = params - LR * b


def receives_dicts(params):
    b = {name: np.zeros_like(p) for name, p in params.items()}
    while True:
        grads = yield params
        b = {name: 0.9 * b[name] + grads[name] for name in b}
        params = {name: params[name] - LR * b[name] for name in b}


def loops_over_pairs(grad, layers):
    b = [(np.zeros_like(w), np.zeros_like(bias)) for w, bias in layers]
    while True:
        grads = grad(layers)
        b = [(0.9 * v + dw, 0.9 * c + db) for (v, c), (dw, db) in zip(b, grads, strict=True)]
        layers = [(w - LR * v, bias - LR * c) for (w, bias), (v, c) in zip(layers, b, strict=True)]


def yields(grad, x, lr=LR):
    b = np.zeros_like(x)
    while True:
        b = 0.9 * b + grad(x)
        x = x - lr * b
        yield x


def with_rate(optimizer):
    return functools.partial(optimizer, lr=LR)


ACCEPTED = {  # optimizer, how it is called
    "id": (KeyedById(), "KeyedById.step(params, grads), on a list"),
    "parameters": (with_rate(OfParameters), "OfParameters(params) on a list of objects with .data and .grad"),
    "dicts": (with_rate(OfDicts), "OfDicts(params) on a model with the dicts params and grads, then .step"),
    "lists": (with_rate(OfLists), "OfLists(params) on a model with the lists params and grads, then .step"),
    "layers": (with_rate(OfLayers), "OfLayers(params) on a model whose layers have W, b, dW, db, then .step"),
    "receives": (receives, "receives(x0), on one array, all leaves concatenated; it yields parameters, and receives"),
    "receives dicts": (receives_dicts, "receives_dicts(x0), on a flat dict; it yields parameters, and receives"),
    "pairs in a loop": (
        loops_over_pairs,
        "loops_over_pairs(grad, x0), on a list of pairs [(w, b), …]; it runs the loop",
    ),
    "yields": (yields, "yields(grad, x0), on one array, all leaves concatenated; it runs the loop"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_shape_is_accepted(name):
    optimizer, called = ACCEPTED[name]
    assert adapt(optimizer).called.startswith(called)
    assert difference(optimizer, optax.sgd(LR, 0.9)) is None


REFUSED = {  # optimizer, the code that adapts it
    "lost": (LosesById(), r"m = self\.m\.get\(i, 0\.0\)"),
    "class of a model": (OfDicts, r"functools\.partial\(OfDicts, lr=…\)"),
    "running generator": (receives(0.0), r"yield from receives\(params, …\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_shape_is_refused_with_code(name):
    optimizer, code = REFUSED[name]
    with pytest.raises(optcheck.NotAnOptimizerError, match=code):
        adapt(optimizer)


def test_own_classes_of_torch_need_their_numbers():
    torch = pytest.importorskip("torch")

    class Own(torch.optim.SGD):
        def __init__(self, params, lr):
            super().__init__(params, lr)

    with pytest.raises(optcheck.NotAnOptimizerError, match=r"functools\.partial\(.*Own, lr=…\)"):
        adapt(Own)
    assert difference(functools.partial(Own, lr=LR), torch_of("SGD")) is None


def test_fixes_for_torch_omit_defaults():
    pytest.importorskip("torch")
    call = "functools.partial(torch.optim.Adam, lr=0.001{})"
    assert torch_call(Formula(ADAM, HyperParams())) == call.format("")
    assert torch_call(Formula(ADAM, HyperParams(b2=0.99))) == call.format(", betas=(0.9, 0.99)")


FILE = """
import numpy as np

class Base:
    def step(self, params, grads):
        return [self.update_one(p, g) for p, g in zip(params, grads)]
    def update_one(self, p, g):
        raise NotImplementedError

class Plain(Base):
    def update_one(self, p, g):
        return p - 0.001 * g

def clip(grads, bound):
    return [np.clip(g, -bound, bound) for g in grads]
"""


def test_a_function_that_is_not_implemented_is_reported(tmp_path):
    file = tmp_path / "unfinished_rule.py"
    file.write_text("def step(params, grads):\n    raise NotImplementedError('sparse gradients')\n", encoding="utf-8")
    (finding,) = optcheck.audit(file).findings
    assert "sparse gradients" in finding.problem


def test_a_folder_is_audited_without_base_classes_and_helpers(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "plain_rules.py").write_text(FILE)
    for _ in range(2):
        audit = optcheck.audit(tmp_path / "rules")
        assert [finding.name for finding in audit.findings] == ["plain_rules.Plain"]
        assert audit.findings[0].verdict == "sgd; λ = 0.001"
        assert audit.findings[0].file.endswith("plain_rules.py")
        (tmp_path / "rules" / "__init__.py").write_text("")  # the second time it is a package


def test_rules_of_matrices_and_of_vectors_are_identified_separately(monkeypatch):
    inputs = rule_inputs(gradient_script())
    sgd = LIBRARY_RULES["sgd"]
    decayed = Formula(sgd.rule._replace(decay="decoupled"), sgd.hyper._replace(weight_decay=0.01))
    is_matrix = np.array([len(shape) > 1 for shape in inputs.shapes])[inputs.leaf]
    updates = np.where(is_matrix, *(update_array(formula, inputs) for formula in (decayed, sgd)))
    target = Target(updates, 1e-9 * np.abs(updates), inputs)

    def identify(target, guess, budget):  # a small search
        return [Attempt(formula) for formula in (sgd, decayed) if reproduces(formula, target)]

    monkeypatch.setattr(by_dimensions, "identify_formula", identify)
    parts = by_dimensions.identify_by_dimensions(target, Budget(10))
    assert [(part.leaves, part.formula) for part in parts] == [("matrices", decayed), ("vectors and scalars", sgd)]
