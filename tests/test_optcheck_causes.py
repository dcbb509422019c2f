"""The checker names the causes of wrong optimizers, and none for correct or unknown ones."""

import jax
import pytest
from optcheck_runs import cause_ids, diagnosis, difference, torch_of
from unseen_optimizers import MORE_RIGHT, MORE_UNKNOWN, MORE_WRONG
from wrong_optimizers import RIGHT, UNKNOWN, WRONG, moments, ratio, rule

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # candidates divide by zero, as they would


@pytest.fixture(autouse=True)
def usual_modes():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", RIGHT | MORE_RIGHT)
def test_what_is_right_matches_however_it_looks(name, dtype):
    case = (RIGHT | MORE_RIGHT)[name]
    assert difference(case.optimizer, case.reference, dtype) is None


TORCH = {"torch.amsgrad": ("Adam", {"amsgrad": True}), "torch.nadam": ("NAdam", {})}


@pytest.mark.parametrize("name", WRONG | MORE_WRONG)
def test_what_is_wrong_is_named(name):
    case = (WRONG | MORE_WRONG)[name]
    optimizer = case.optimizer
    if isinstance(optimizer, str):
        optimizer = torch_of(TORCH[optimizer][0], **TORCH[optimizer][1])
    explanations = diagnosis(optimizer, case.reference).explanations
    named = [frozenset(cause_ids(explanation)) for explanation in explanations]
    named += [frozenset(cause.id for cause in group) for why in explanations for group in why.synonyms]
    assert case.causes in named
    assert set(named) <= {case.causes, *case.ties}
    assert all(explanation.error < 1e-5 for explanation in explanations)


@pytest.mark.parametrize(
    "name", ["eps inside the root", "no correction", "counter from 0", "L2 instead of decoupled", "dampening"]
)
def test_what_is_wrong_is_named_in_float32_alone(name):
    case = (WRONG | MORE_WRONG)[name]
    why = diagnosis(case.optimizer, case.reference, "float32")
    assert case.causes == cause_ids(why.explanations[0])


@pytest.mark.parametrize("name", UNKNOWN | MORE_UNKNOWN)
def test_what_is_unknown_is_said_to_be(name):
    case = (UNKNOWN | MORE_UNKNOWN)[name]
    why = diagnosis(case.optimizer, case.reference, max_fits=160)  # all rules up to two choices away
    assert why.explanations == ()
    assert why.reference is not None
    assert not why.complete


def test_leaves_whose_state_is_lost_are_named():
    def update(g, p, t, m, v):
        new = moments(g, m, v)
        return -ratio(*new, t), dict(zip("mv", (m, v) if p.ndim == 1 else new, strict=True))

    causes = diagnosis(rule(update, "m", "v"), "optax.adam").explanations[0].causes
    assert {cause.id for cause in causes} == {"first_storage-none", "second_storage-none"}
    assert {cause.leaves for cause in causes} == {("dense/b", "norm/bias", "norm/scale")}


def test_leaves_are_named():
    causes = diagnosis(WRONG["decay on matrices only"].optimizer, "optax.adam").explanations[0].causes
    assert {cause.leaves for cause in causes} == {("conv/kernel", "dense/w")}
