"""The causes that the optimizer checker names: of what is wrong, not of what is right, nor of what it does not know."""

import functools

import jax
import pytest
from unseen_optimizers import MORE_RIGHT, MORE_UNKNOWN, MORE_WRONG
from wrong_optimizers import RIGHT, UNKNOWN, WRONG, moments, ratio, rule

from nnjax.optcheck.rules.library_rules import NAMED
from nnjax.optcheck.search.diagnosis import explain
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.factories import made
from nnjax.optcheck.trace.observations import in_both_dtypes, told

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # candidates divide by zero, as they would
LR = 1e-3


@pytest.fixture(autouse=True)
def usual_modes():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def torch_of(name, **arguments):
    torch = pytest.importorskip("torch")
    return functools.partial(getattr(torch.optim, name), lr=LR, **arguments)


def found(candidate, reference, seconds=60, dtype="float64"):
    """Where they differ, and why."""
    deadline = Deadline(seconds)
    one, other = made(candidate, None, None, None), made(reference, None, None, None)
    observed = in_both_dtypes(one, other, deadline)[dtype == "float32"]
    passed = told(observed)
    return passed, explain(passed, observed, NAMED.get(reference), deadline) if passed.first else None


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", RIGHT | MORE_RIGHT)
def test_what_is_right_matches_however_it_looks(name, dtype):
    case = (RIGHT | MORE_RIGHT)[name]
    assert found(case.optimizer, case.reference, dtype=dtype)[0].first is None


TORCH = {"torch.amsgrad": ("Adam", {"amsgrad": True}), "torch.nadam": ("NAdam", {})}


@pytest.mark.parametrize("name", WRONG | MORE_WRONG)
def test_what_is_wrong_is_named(name):
    case = (WRONG | MORE_WRONG)[name]
    optimizer = case.optimizer
    if isinstance(optimizer, str):
        optimizer = torch_of(TORCH[optimizer][0], **TORCH[optimizer][1])
    passed, why = found(optimizer, case.reference)
    assert passed.first is not None
    named = [frozenset(cause.id for cause in answer.causes) for answer in why.answers]
    assert case.causes in named
    assert set(named) <= {case.causes, *case.ties}
    assert all(answer.error < 1e-5 for answer in why.answers)


@pytest.mark.parametrize(
    "name", ["eps inside the root", "no correction", "counter from 0", "L2 instead of decoupled", "dampening"]
)
def test_what_is_wrong_is_named_in_float32_alone(name):
    case = (WRONG | MORE_WRONG)[name]
    _, why = found(case.optimizer, case.reference, dtype="float32")
    assert case.causes == {cause.id for cause in why.answers[0].causes}


@pytest.mark.parametrize("name", UNKNOWN | MORE_UNKNOWN)
def test_what_is_unknown_is_said_to_be(name):
    case = (UNKNOWN | MORE_UNKNOWN)[name]
    passed, why = found(case.optimizer, case.reference, seconds=6)
    assert passed.first is not None
    assert why.answers == ()
    assert why.reference is not None


def test_leaves_whose_state_is_lost_are_named():
    def update(g, p, t, m, v):
        new = moments(g, m, v)
        return -ratio(*new, t), dict(zip("mv", (m, v) if p.ndim == 1 else new, strict=True))

    _, why = found(rule(update, "m", "v"), "optax.adam")
    causes = why.answers[0].causes
    assert {cause.id for cause in causes} == {"first_kept-lost", "second_kept-lost"}
    assert {cause.leaves for cause in causes} == {("dense/b", "norm/bias", "norm/scale")}


def test_leaves_are_named():
    _, why = found(WRONG["decay on matrices only"].optimizer, "optax.adam")
    assert {cause.leaves for cause in why.answers[0].causes} == {("conv/kernel", "dense/w")}
