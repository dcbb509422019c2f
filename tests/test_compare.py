"""Paired comparisons of two runs: the seeds share everything but what is compared."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import losses, metrics, nn, optim, train
from nnjax.types import Data

X = jax.random.normal(jax.random.key(1), (16, 3))
DATA = Data(X, (X.sum(-1) > 0).astype(jnp.int32))
SMOOTH = partial(losses.cross_entropy, label_smoothing=0.1)


def make(rate=0.05, loss=losses.cross_entropy, scores=(metrics.accuracy,)):
    return train.Run(nn.mlp([4], 2, dropout=0.2), loss, optim.adam(rate), batch_size=4, metrics=scores)


def compare(first, second, **settings):
    given = {"validation": DATA, "epochs": 2, "seeds": 3, "progress": False} | settings
    return train.compare(first, second, DATA, **given)


def test_a_run_against_itself_is_exactly_0():
    found = compare(make(), make())
    assert set(found.differences) == {"loss", "accuracy"}
    for difference in found.differences.values():
        assert (difference.difference, difference.low, difference.high) == (0, 0, 0)


def test_scores_of_each_seed_are_those_of_its_run():
    found = compare(make(0.05), make(0.01))
    for run, scores in ((make(0.05), found.first), (make(0.01), found.second)):
        result = train.fit(run, DATA, members=3, epochs=2, validation=DATA, progress=False)
        np.testing.assert_array_equal(scores["loss"], result.history[-1]["validation_loss"])
    difference = found.differences["loss"]
    np.testing.assert_allclose(difference.difference, (found.first["loss"] - found.second["loss"]).mean(), rtol=1e-6)
    assert difference.low < difference.difference < difference.high


def test_losses_that_differ_are_not_compared():
    assert set(compare(make(loss=SMOOTH), make()).differences) == {"accuracy"}
    assert set(compare(make(loss=SMOOTH), make(loss=partial(SMOOTH))).differences) == {"loss", "accuracy"}


MISTAKES = {
    "seeds": (lambda: compare(make(), make(), seeds=1), "at least 2 seeds, got 1"),
    "epochs": (lambda: compare(make(), make(), epochs=0), "epochs > 0, got epochs=0"),
    "validation": (lambda: compare(make(), make(), validation=None), "scored on validation"),
    "nothing in common": (
        lambda: compare(make(loss=SMOOTH, scores=()), make(scores=())),
        "no score in common: loss against loss, of losses that differ",
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
