"""Optimizers in the shapes of their authors: how they are called, and what differs from their reference."""

import warnings

import jax
import jax.numpy as jnp
import pytest
from optcheck_runs import cause_ids
from wild_optimizers import WILD

from nnjax import optcheck
from nnjax.optcheck.calling.adapters import adapt
from nnjax.optcheck.calling.factories import build
from nnjax.optcheck.search.diagnosis import diagnose
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
    why = diagnose(where, both, build(case.reference) if isinstance(case.reference, str) else None, 300)
    if case.truth is None:
        assert why.explanations == ()
        return
    named = [cause_ids(explanation) for explanation in why.explanations]
    assert case.truth in named
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
    with pytest.raises(optcheck.NotAnOptimizerError, match="pass the function that makes it"):
        adapt(step)


@pytest.mark.parametrize("ending", ["sys.exit(0)", "os._exit(0)"])
def test_an_optimizer_cannot_end_the_process(ending):
    def step(params, grads, state):
        exec(f"import os, sys; {ending}")
        return params, state

    with pytest.raises(RuntimeError, match="the optimizer called"):
        optcheck.compare(step, "sgd")


def test_moments_in_bfloat16_are_no_hidden_state():
    import optax

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = optcheck.compare(optax.adam(1e-3, mu_dtype=jnp.bfloat16), optax.adam(1e-3, mu_dtype=jnp.bfloat16))
    assert report.ok, str(report)
