"""The result of fit: its short form, and the scores at the lowest validation loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import losses, metrics, nn, optim, train

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3)).astype(np.float32)
DATA = (X, (X[:, 0] > 0).astype(np.int32))
RUN = train.Run(nn.dense(2), losses.cross_entropy, optim.sgd(0.5), batch_size=4, metrics=(metrics.accuracy,))


@pytest.fixture(scope="module")
def folds():
    return train.fit(RUN, DATA, epochs=4, folds=train.k_fold(jax.random.key(0), n=30, k=4), progress=False)


def test_folds_have_their_scores_at_their_best_epochs(folds):
    scores = folds.best_scores()
    assert scores.keys() == {"epoch", "loss", "accuracy"}
    history = np.array([record["validation_loss"] for record in folds.history])
    np.testing.assert_array_equal(scores["loss"], history.min(0))
    np.testing.assert_allclose(scores["loss"], folds.best.score, rtol=1e-6)
    for fold, epoch in enumerate(scores["epoch"]):
        record = folds.history[int(epoch) - 1]
        assert record["validation_accuracy"][fold] == scores["accuracy"][fold]


def test_steps_of_folds_of_different_sizes_are_their_own():
    run = train.Run(nn.dense(2), losses.cross_entropy, optim.sgd(0.1), batch_size=1)
    data = (X[:9], DATA[1][:9])
    result = train.fit(run, data, epochs=2, folds=train.k_fold(jax.random.key(0), n=9, k=2), progress=False)
    assert [record["step"].tolist() for record in result.history] == [[4, 5], [8, 10]]
    np.testing.assert_array_equal(result.ts.step, [8, 10])


def test_steps_are_counted_in_epochs():
    result = train.fit(RUN, DATA, steps=12, progress=False)  # of 4 rows, with 30 rows
    assert [(record["step"], record["epoch"]) for record in result.history] == [(8, 1), (12, 1.6)]


def test_a_single_run_has_numbers():
    result = train.fit(RUN, DATA, epochs=3, validation=DATA, progress=False)
    scores = result.best_scores()
    assert type(scores["loss"]) is float
    assert scores["loss"] == min(record["validation_loss"] for record in result.history)
    with pytest.raises(ValueError, match="nothing was validated; fit with validation= or folds="):
        train.fit(RUN, DATA, epochs=1, progress=False).best_scores()


def test_a_result_is_shown_in_short(folds):
    text = repr(folds)
    assert text.startswith("Result(members=4, steps=2")
    assert f"validation_accuracy={np.mean(folds.history[-1]['validation_accuracy']):.4g}" in text
    assert text.endswith("; means over the members)")
    assert len(text) < 200
    assert repr(folds._replace(diverged=np.array([-1, 3, -1, -1]))).count("diverged=[1]") == 1


def test_other_results_are_shown_in_short():
    make = lambda hyper: train.Run(nn.dense(2), losses.cross_entropy, optim.sgd(hyper["rate"]), batch_size=4)  # noqa: E731
    swept = train.sweep(make, {"rate": [0.1, 0.2]}, DATA, validation=DATA, epochs=1, progress=False)
    assert repr(swept).startswith("Sweep(settings=2, best={'rate': 0.")
    space = {"rate": train.log_uniform(0.1, 1)}
    found = train.search(make, space, DATA, validation=DATA, trials=3, population=3, rungs=(1,), progress=False)
    assert repr(found).startswith("Search(trials=3, networks=3, best=TrialNetwork(trial=")
    unstable = train.Run(
        nn.serial(nn.dense(8), jnp.exp, nn.dense(1)), losses.squared_error, optim.sgd(9.0), batch_size=4
    )
    replay = train.replay(unstable, (10 * X, X[:, :1]), epochs=2)
    assert replay is not None
    assert repr(replay) == f"Replay({replay})"
    assert max(map(len, map(repr, (swept, found, replay)))) < 300


def test_records_after_the_stop_of_a_member_are_nan_although_it_did_not_diverge():
    make = lambda hyper: train.Run(nn.dense(2), losses.cross_entropy, optim.sgd(hyper["rate"]), batch_size=4)  # noqa: E731
    swept = train.sweep(make, {"rate": [0.0, 0.5]}, DATA, validation=DATA, epochs=4, patience=1, progress=False)
    result = swept.result
    np.testing.assert_array_equal(result.stopped, [True, False])
    np.testing.assert_array_equal(
        np.isnan([record["loss"] for record in result.history])[:, 0], [False, False, True, True]
    )
    assert np.isfinite([record["loss"][1] for record in result.history]).all()
    assert (result.diverged == -1).all()
