"""Optimizers in the shapes of their authors: how they are called, and what differs from their reference."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from wild_optimizers import WILD, torch

from nnjax import optcheck
from nnjax.optcheck.calling.adapters import adapt
from nnjax.optcheck.calling.factories import build
from nnjax.optcheck.search.diagnosis import MAX_FITS, diagnose
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.observations import observe, summarise

pytestmark = pytest.mark.filterwarnings("ignore")  # candidates divide by zero, as they would


@pytest.fixture(autouse=True)
def usual_modes():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("name", WILD)
def test_the_truth_is_found(name):
    case = WILD[name]
    if case.refusal:
        with pytest.raises(optcheck.NotAnOptimizerError, match=case.refusal) as error:
            adapt(case.candidate)
        assert "def step(params, grads, state):" in str(error.value)
        return
    candidate = adapt(case.candidate, None, case.arguments.get("init"))
    both = observe(candidate, build(case.reference), "float64", Deadline(None))
    where = summarise(both)
    if case.truth == frozenset():
        assert where.divergence is None
        return
    fits = 60 if case.truth is None else MAX_FITS
    why = diagnose(where, both, build(case.reference) if isinstance(case.reference, str) else None, fits)
    if case.truth is None:
        assert why.explanations == ()
        return
    groups = [group for explanation in why.explanations for group in (explanation.causes, *explanation.synonyms)]
    assert case.truth in [{cause.id for cause in group} for group in groups]
    assert bool(why.explanations[0].causes[0].leaves) == case.leaves


# Arguments in any order -----------------------------------------------------------------------------------------------


def descend(p, g):
    return jax.tree.map(lambda p, g: p - 1e-3 * g, p, g)


ORDERS = {
    "known names": (lambda dw, opt_state, w: (descend(w, dw), opt_state), "(grads, state, params)"),
    "unknown names": (lambda a, b, c: (descend(b, a), c), "(grads, params, state)"),
    "wrong names": (lambda grads, params, state: (descend(grads, params), state), "(params, grads, state)"),
    "results the other way round": (lambda p, g, s: (s, descend(p, g)), "(params, grads, state)"),
    "updates": (lambda a, b: jax.tree.map(lambda g: -1e-3 * g, b), "(params, grads)"),
    "keywords": (lambda *, grads, params: descend(params, grads), "(grads=grads, params=params)"),
    "a counter": (lambda w, dw, it: descend(w, dw), "(params, grads, t = 0, 1, …)"),
    "a counter from 1": (
        lambda w, dw, t: jax.tree.map(lambda p, g: p - 1e-3 * jnp.sqrt(1 / t) * jnp.sqrt(t * 1.0) * g, w, dw),
        "(params, grads, t = 1, 2, …)",
    ),
}


@pytest.mark.parametrize("name", ORDERS)
def test_arguments_may_come_in_any_order(name):
    function, call = ORDERS[name]
    adapter = adapt(function)
    assert call in adapter.called
    both = observe(adapter, build("sgd"), "float64", Deadline(None))
    assert summarise(both).divergence is None


def test_two_possible_orders_are_asked_for():
    def step(a, b):
        return jax.tree.map(lambda a, b: -1e-3 * (a + b), a, b)

    with pytest.raises(optcheck.NotAnOptimizerError, match=r"choose one: order=\('params', 'grads'\)"):
        adapt(step)
    assert "(grads, params)" in adapt(step, order=("grads", "params")).called


def test_a_closure_with_its_own_state_needs_the_function_that_makes_it():
    step = WILD["closure momentum"].candidate()
    with pytest.raises(optcheck.NotAnOptimizerError, match="pass a function that makes it"):
        adapt(step)


@pytest.mark.parametrize("ending", ["sys.exit(0)", "os._exit(0)"])
def test_an_optimizer_cannot_end_the_process(ending):
    def step(params, grads, state):
        exec(f"import os, sys; {ending}")
        return params, state

    with pytest.raises(RuntimeError, match="the optimizer called"):
        optcheck.compare(step, "sgd")


# Neighbours of the forty-five -----------------------------------------------------------------------------------------


def x_m_v_t(x, grad, m, v, t, lr=1e-3):
    t = t + 1
    m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
    return x - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v, t


def torch_function(params, grads, velocities):
    velocities = [torch.add(0.9 * b, g) for b, g in zip(velocities, grads, strict=True)]
    return [torch.sub(p, 1e-3 * b) for p, b in zip(params, velocities, strict=True)], velocities


class Callable:
    b = None

    def __call__(self, params, grads):
        self.b = grads if self.b is None else jax.tree.map(lambda b, g: 0.9 * b + g, self.b, grads)
        return jax.tree.map(lambda p, b: p - 1e-3 * b, params, self.b)

    def advance(self, params, grads):
        return self(params, grads)


def made_from_parameters(params):
    b = [np.zeros_like(p) for p in params]

    def step(params, grads):
        for i, g in enumerate(grads):
            b[i] = 0.9 * b[i] + g
        return [p - 1e-3 * velocity for p, velocity in zip(params, b, strict=True)]

    return step


class WithInitState:
    def init_state(self, params):
        return {"first": jax.tree.map(jnp.zeros_like, params)}

    def update(self, params, grads, state):
        b = jax.tree.map(lambda b, g: 0.9 * b + g, state["first"], grads)
        return jax.tree.map(lambda p, b: p - 1e-3 * b, params, b), {"first": b}


class TensorSGD:
    def __init__(self, params, lr, momentum=0.9):
        self.params, self.lr, self.momentum, self.b = list(params), lr, momentum, {}

    def step(self):
        for i, p in enumerate(self.params):
            self.b[i] = self.momentum * self.b.get(i, 0.0) + p.grad
            p -= self.lr * self.b[i]  # noqa: PLW2901


class Replacing:
    def __init__(self, params):
        self.params, self.b = params, [0.0] * len(params)

    def step(self, grads):
        self.b = [0.9 * b + g for b, g in zip(self.b, grads, strict=True)]
        self.params = [p - 1e-3 * b for p, b in zip(self.params, self.b, strict=True)]


@jax.jit
def jitted(p, s, g):
    s = jax.tree.map(lambda b, g: 0.9 * b + g, s, g)
    return jax.tree.map(lambda p, b: p - 1e-3 * b, p, s), s


def layers(params, grads, velocity):
    for name in params:
        for key in ("W", "b"):
            velocity[name][key] = 0.9 * velocity[name][key] + grads[name][key]
            params[name][key] = params[name][key] - 1e-3 * velocity[name][key]
    return params, velocity


def powers(params, grads, m, v, beta1_t, beta2_t):
    """The products β₁ᵗ and β₂ᵗ are part of the state; they start at 1."""
    beta1_t, beta2_t = 0.9 * beta1_t, 0.999 * beta2_t
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
    params = jax.tree.map(
        lambda p, m, v: p - 1e-3 * m / (1 - beta1_t) / (jnp.sqrt(v / (1 - beta2_t)) + 1e-8), params, m, v
    )
    return params, m, v, beta1_t, beta2_t


class OfModel:
    def __init__(self, model, lr=1e-3):
        self.model, self.lr = model, lr

    def step(self):
        for p in self.model.parameters():
            p.data -= self.lr * p.grad


class GetUpdate:
    def get_update(self, params, grads):
        return [p - 1e-3 * g for p, g in zip(params, grads, strict=True)]


def polyak(params, grads, loss):
    size = sum(jnp.sum(g**2) for g in jax.tree.leaves(grads))
    return jax.tree.map(lambda p, g: p - jnp.minimum(1.0, loss / size) * g, params, grads)


def sam(params, loss_fn, state):
    grads = jax.grad(loss_fn)(params)
    size = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
    perturbed = jax.tree.map(lambda p, g: p + 0.05 * g / size, params, grads)
    return jax.tree.map(lambda p, g: p - 1e-3 * g, params, jax.grad(loss_fn)(perturbed)), state


NEIGHBOURS = {
    "the value of the loss": (polyak, optax.polyak_sgd()),
    "the loss function": (sam, WILD["SAM"].reference),
    "powers of decay rates": (powers, "optax.adam"),
    "made from a model": (OfModel, "sgd"),
    "get_update": (GetUpdate(), "sgd"),
    "(x, m, v, t)": (x_m_v_t, "optax.adam"),
    "functions of PyTorch": (torch_function, "momentum"),
    "a callable object": (Callable(), "momentum"),
    "a bound method": (Callable().advance, "momentum"),
    "a step made from parameters": (made_from_parameters, "momentum"),
    "init_state": (WithInitState(), "momentum"),
    "tensors, a class": (lambda params: TensorSGD(params, 1e-3), "momentum"),
    "a list that is replaced": (Replacing, "momentum"),
    "under jit": (jitted, "momentum"),
    "layers": (layers, "momentum"),
    "PyTorch's lambda": (lambda params: torch.optim.SGD(params, lr=1e-3, momentum=0.9), "momentum"),
    "PyTorch's instance": (torch.optim.SGD([torch.zeros(2)], lr=1e-3, momentum=0.9), "momentum"),
    "a class without arguments": (WithInitState, "momentum"),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours_are_called_too(name):
    optimizer, reference = NEIGHBOURS[name]
    both = observe(adapt(optimizer), build(reference), "float64", Deadline(None))
    assert summarise(both).divergence is None


def test_hparams_have_other_names():
    def factory(alpha, mu):
        import optax

        return optax.sgd(alpha, mu)

    assert optcheck.compare(factory, "momentum", hparams={"learning_rate": 0.5, "momentum": 0.8}).ok
    assert optcheck.compare(TensorSGD, "momentum", hparams={"learning_rate": 0.5, "momentum": 0.8}).ok
