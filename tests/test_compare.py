"""Paired comparisons of two runs, which share the draws of each seed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnjax import losses, metrics, nn, optim, train
from nnjax.types import Data

X = jax.random.normal(jax.random.key(1), (16, 3))
DATA = Data(X, (X.sum(-1) > 0).astype(jnp.int32))
rng = np.random.default_rng(0)
SMOOTH = partial(losses.cross_entropy, label_smoothing=0.1)


def make(rate=0.05, loss=losses.cross_entropy, scores=(metrics.accuracy,)):
    return train.Run(nn.mlp([4], 2, dropout=0.2), loss, optim.adam(rate), batch_size=4, metrics=scores)


def compare(first, second, **settings):
    given = {"validation": DATA, "epochs": 2, "seeds": 3, "progress": False} | settings
    return train.compare(first, second, DATA, **given)


def test_a_run_against_itself_is_exactly_0():
    comparison = compare(make(), make())
    assert set(comparison.differences) == {"loss", "accuracy"}
    for difference in comparison.differences.values():
        assert (difference.difference, difference.low, difference.high) == (0, 0, 0)


def test_scores_of_each_seed_are_those_of_its_run():
    comparison = compare(make(0.05), make(0.01))
    for run, scores in ((make(0.05), comparison.first), (make(0.01), comparison.second)):
        result = train.fit(run, DATA, members=3, epochs=2, validation=DATA, progress=False)
        np.testing.assert_array_equal(scores["loss"], result.history[-1]["validation_loss"])
    difference = comparison.differences["loss"]
    expected = (comparison.first["loss"] - comparison.second["loss"]).mean()
    np.testing.assert_allclose(difference.difference, expected, rtol=1e-6)
    assert difference.low < difference.difference < difference.high


def test_losses_that_differ_are_not_compared():
    assert set(compare(make(loss=SMOOTH), make()).differences) == {"accuracy"}
    assert set(compare(make(loss=SMOOTH), make(loss=partial(SMOOTH))).differences) == {"loss", "accuracy"}


MISTAKES = {
    "seeds": (lambda: compare(make(), make(), seeds=1), "at least 2 seeds, got 1"),
    "epochs": (lambda: compare(make(), make(), epochs=0), "more than 0 epochs or steps, got epochs=0"),
    "validation": (lambda: compare(make(), make(), validation=None), "scored on validation"),
    "nothing in common": (
        lambda: compare(make(loss=SMOOTH, scores=()), make(scores=())),
        "no score in common: loss against loss, with different loss functions",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    call, message = MISTAKES[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.filterwarnings("ignore:fit. the loss of step:RuntimeWarning")
def test_a_run_that_diverged_has_no_score():
    with pytest.raises(ValueError, match=r"the second run diverged for seed \d in step \d+"):
        compare(make(), make(1e38))


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_paired_difference_equals_scipy(confidence):
    a, b = rng.normal(size=(2, 9))
    result = train.paired_difference(a, b, confidence=confidence)
    test = scipy.stats.ttest_rel(a, b)
    expected = [(a - b).mean(), *test.confidence_interval(confidence), 9]
    np.testing.assert_allclose(result, expected, rtol=1e-10)
    back = train.paired_difference(b, a, confidence=confidence)
    np.testing.assert_allclose([back.difference, back.low, back.high], [-result.difference, -result.high, -result.low])


@given(hnp.arrays(np.float64, st.integers(2, 20), elements=st.floats(-1e300, 1e300)))
def test_a_run_against_itself_is_exactly_zero(scores):
    assert train.paired_difference(scores, scores) == (0.0, 0.0, 0.0, len(scores))


def test_pairing_removes_what_seeds_share():
    seeds, noise = rng.normal(size=50), 0.01 * rng.normal(size=50)
    result = train.paired_difference(jnp.asarray(seeds + 0.1 + noise, "float32"), jnp.asarray(seeds, "float32"))
    assert result.low < 0.1 < result.high
    assert result.high - result.low < 0.01
    assert [type(value) for value in result] == [float, float, float, int]


@pytest.mark.parametrize(
    ("a", "b", "how", "text"),
    [
        (np.ones(1), np.ones(1), {}, "an interval needs at least 2 seeds, got 1; run more seeds"),
        (np.ones(3), np.ones(2), {}, r"one score per seed, \(seeds,\), got \(3,\), \(2,\)"),
        (np.ones((3, 1)), np.ones((3, 1)), {}, r"\(seeds,\), got \(3, 1\)"),
        (1.0, 2.0, {}, r"\(seeds,\), got \(\), \(\)"),
        (np.array([1, np.nan]), np.ones(2), {}, "must be finite, got nan and 1.0 for seed 1"),
        (np.ones(3), np.array([1, 1, np.inf]), {}, "must be finite, got 1.0 and inf for seed 2"),
        (np.ones(2), np.ones(2), {"confidence": 1.0}, r"confidence must be in \(0, 1\), got 1"),
        (np.ones(2), np.ones(2), {"confidence": 95}, r"confidence must be in \(0, 1\), got 95"),
    ],
    ids=["one seed", "lengths", "column", "numbers", "nan", "inf", "confidence 1", "per cent"],
)
def test_paired_difference_names_what_does_not_fit(a, b, how, text):
    with pytest.raises(ValueError, match=f"^paired_difference: .*{text}"):
        train.paired_difference(a, b, **how)
