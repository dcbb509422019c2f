"""Ensembles: steps of vmap, early stopping and divergence of members. See test_train_properties.py for their bits."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import promoting
from train_runs import (
    DATA,
    HELD_OUT,
    KEY,
    KEYS,
    RUN,
    STEPS,
    N,
    X,
    assert_close,
    assert_equal,
    assert_same_history,
    fit,
)

from nnjax import losses, nn, optim, train
from nnjax.metrics import accuracy
from nnjax.train.engine.device_loop import MemberArgs, train_chunk
from nnjax.train.engine.ensemble import Ensemble, index_tree
from nnjax.train.engine.fit_state import initial_fit_state
from nnjax.types import Data

CONV = nn.serial(nn.reshape((3, 1)), nn.conv(2, 3), jax.nn.relu, nn.max_pool(2), nn.flatten(), nn.dense(2))
NOISY = optax.chain(promoting(optax.add_noise)(0.01, 0.5, jax.random.key(9)), optim.momentum(0.1))
CASES = {  # run, data
    "batch_norm, dropout, adam": (RUN, DATA),
    "convolution, an optimizer that draws, weights, micro-batches of the full batch": (
        train.Run(CONV, losses.cross_entropy, NOISY, batch_size=None, micro_batches=2),
        DATA._replace(weights=jnp.linspace(0.0, 2.0, N)),
    ),
}
STRATEGIES = pytest.mark.parametrize("strategy", ["map", "vmap"])


def begin(ts):
    """Return the state before a chunk, as a copy because a chunk reuses its memory."""
    fs = jax.vmap(lambda ts: initial_fit_state(ts, validated=True, stopped=jnp.zeros((), bool)))(ts)
    return jax.tree.map(jnp.copy, fs)


@pytest.mark.parametrize("case", CASES)
def test_a_step_of_vmap_is_that_of_map_to_rounding(case):
    """From the same states, the first and one that is trained."""
    run, data = CASES[case]
    for epochs in (0, 3):
        ts = fit(run, data, key=KEYS, epochs=epochs).ts
        until = ts.step + 1
        (a, log_a, _), (b, log_b, _) = (
            train_chunk(Ensemble(run, 3, strategy), begin(ts), MemberArgs(until=until), data, np.int32(1))
            for strategy in ("map", "vmap")
        )
        np.testing.assert_allclose(log_a["loss"][:, 0], log_b["loss"][:, 0], rtol=1e-5)
        assert_close(b.train, a.train)
        np.testing.assert_array_equal(a.train.step, until)
        np.testing.assert_array_equal(b.train.step, until)


@STRATEGIES
def test_members_have_a_leading_axis(strategy):
    result = fit(key=KEYS, strategy=strategy)
    assert result.losses.shape == (3, 15)
    assert result.diverged.tolist() == [-1] * 3
    assert result.stopped.tolist() == [False] * 3
    assert result.ts.params[0]["w"].shape == (3, 3, 4)
    assert result.best.score.shape == result.best.step.shape == (3,)
    assert [(record["epoch"], record["step"]) for record in result.history] == [(1, 5), (2, 10), (3, 15)]
    for e, record in enumerate(result.history):
        assert record.keys() == {"epoch", "step", "loss", "validation_loss", "validation_accuracy"}
        np.testing.assert_allclose(record["loss"], result.losses[:, 5 * e : 5 * e + 5].mean(1), rtol=1e-6)
    scores = jax.vmap(RUN.evaluate, in_axes=(0, None))(result.ts, HELD_OUT)
    np.testing.assert_allclose(result.history[-1]["validation_loss"], scores["loss"], rtol=1e-5)
    np.testing.assert_allclose(result.history[-1]["validation_accuracy"], scores["accuracy"], rtol=1e-5)
    lowest = np.min([record["validation_loss"] for record in result.history], axis=0)
    np.testing.assert_array_equal(result.best.score, lowest)


def test_members_that_share_a_key_warn():
    with pytest.warns(UserWarning, match="members share a key, so they are the same network"):
        result = fit(key=KEYS[jnp.array([0, 1, 0])])
    assert_equal(index_tree(result.ts, 0), index_tree(result.ts, 2))


def test_wrong_members_are_named():
    with pytest.raises(ValueError, match="got members=4 but 3 keys; omit members"):
        fit(key=KEYS, members=4)
    with pytest.raises(ValueError, match="members must be ≥ 1, got 0"):
        fit(members=0)
    with pytest.raises(TypeError, match=r"members must be an integer, got 2\.0"):
        fit(members=2.0)
    with pytest.raises(ValueError, match=r"unknown strategy 'pmap'.*known names are map, vmap"):
        fit(members=2, strategy="pmap")
    with pytest.raises(ValueError, match="group must be ≥ 1, got 0"):
        fit(members=2, group=0)


def test_groups_of_vmap_agree_to_rounding():
    """After one step."""
    keys = jax.random.split(KEY, 6)
    many = fit(key=keys, strategy="vmap", group=3, epochs=1 / STEPS)
    for i, key in enumerate(keys):
        alone = fit(key=key, epochs=1 / STEPS)
        assert_close(index_tree(many.ts, i), alone.ts)
        np.testing.assert_allclose(many.losses[i], alone.losses, rtol=1e-5)


def linear(hyper):
    return train.Run(nn.dense(1), losses.squared_error, optim.sgd(hyper["rate"]), batch_size=4)


def swept(rates, strategy="map", **settings):
    data, held_out = Data(X, X[:, :1]), Data(X[:6], X[:6, :1])
    return train.sweep(
        linear, {"rate": rates}, data, validation=held_out, strategy=strategy, progress=False,
        **{"epochs": 8} | settings,
    ).result  # fmt: skip


# Early stopping ------------------------------------------------------------------------------------------------------


@functools.cache
def fit_for(epochs, strategy):
    return fit(key=KEYS, strategy=strategy, epochs=epochs)


@STRATEGIES
@pytest.mark.parametrize(("patience", "every"), [(1, 1), (3, 1), (2, 2)])
def test_early_stopping_is_a_loop_that_stops_each_member_by_itself(strategy, patience, every):
    epochs = 11
    at = {e: fit_for(e, strategy) for e in range(1, epochs + 1)}
    evaluate = jax.jit(RUN.evaluate)
    stopped = fit(key=KEYS, strategy=strategy, epochs=epochs, patience=patience, validate_every=every)
    ends = []
    for i in range(3):
        lowest, best, waited = np.inf, 0, 0
        for end in [*range(every, epochs + 1, every), *([epochs] if epochs % every else [])]:
            score = float(evaluate(index_tree(at[end].ts, i), HELD_OUT)["loss"])
            lowest, best, waited = (score, end, 0) if score < lowest else (lowest, best, waited + 1)
            if waited == patience:
                break
        ends.append(end)
        assert stopped.stopped[i] == (waited == patience)
        assert_equal(index_tree(stopped.ts, i), index_tree(at[end].ts, i))
        np.testing.assert_array_equal(stopped.losses[i, : STEPS * end], at[end].losses[i])
        assert np.isnan(stopped.losses[i, STEPS * end :]).all()
        for name in ("params", "state"):
            assert_equal(index_tree(getattr(stopped.best, name), i), index_tree(getattr(at[best].ts, name), i))
        assert stopped.best.step[i] == STEPS * best
        np.testing.assert_allclose(stopped.best.score[i], lowest, rtol=1e-6)
    assert len(stopped.history) == max(ends)
    assert (patience > 1) or len(set(ends)) > 1


# Members that diverge ------------------------------------------------------------------------------------------------


@STRATEGIES
def test_a_member_that_diverges_is_frozen_and_the_others_are_untouched(strategy):
    with pytest.warns(RuntimeWarning, match=r"the loss of step \d+ of member 1 is (inf|nan)") as caught:
        broken = swept([0.01, 1e4, 0.03], strategy)
    assert len(caught) == 1
    step = int(broken.diverged[1])
    assert broken.diverged.tolist() == [-1, step, -1]
    assert f"step {step} " in str(caught[0].message)
    assert 0 < step < 39
    assert broken.ts.step.tolist() == [40, step + 1, 40]
    assert np.isfinite(broken.losses[1, :step]).all()
    assert not np.isfinite(broken.losses[1, step])
    assert np.isnan(broken.losses[1, step + 1 :]).all()
    whole = swept([0.01, 0.02, 0.03], strategy)
    for i in (0, 2):
        assert_equal(index_tree((broken.ts, broken.best), i), index_tree((whole.ts, whole.best), i))
        np.testing.assert_array_equal(broken.losses[i], whole.losses[i])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        short = swept([0.01, 1e4, 0.03], strategy, epochs=(step + 1) * 4 / N)
    np.testing.assert_array_equal(index_tree(broken.ts.params["w"], 1), index_tree(short.ts.params["w"], 1))


def test_a_member_that_diverges_is_named_in_groups():
    with pytest.warns(RuntimeWarning, match=r"the loss of step \d+ of member 2 is (inf|nan)"):
        broken = swept([0.01, 0.02, 1e4], group=1)
    assert (broken.diverged >= 0).tolist() == [False, False, True]
    assert len(broken.history) == 8
    assert np.isfinite(broken.history[-1]["validation_loss"]).tolist() == [True, True, False]


@pytest.mark.filterwarnings("ignore:fit. the loss of step:RuntimeWarning")
def test_the_history_of_a_run_that_diverged_does_not_depend_on_chunks():
    run, data = linear({"rate": 1e4}), Data(X, X[:, :1])
    one, other = (fit(run, data, validation=Data(X, X[:, :1]), epochs=8, chunk_steps=c) for c in (1, 1000))
    assert one.diverged == other.diverged > 0
    assert_equal(one.best, other.best)
    assert_same_history(one.history, other.history)
    assert len(one.history) == (one.diverged + 1) // STEPS


def test_losses_and_best_networks_survive_where_all_members_diverge():
    with pytest.warns(RuntimeWarning, match="of member"):
        broken = swept([1e4, 1e5, 1e6])
    assert (broken.diverged >= 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(broken.best.params))


def test_a_callback_ends_the_run_of_all_groups():
    calls = []
    result = fit(members=3, group=1, callback_every=2, callbacks=[lambda ts, record: not calls.append(record["step"])])
    assert calls == [2]
    assert result.ts.step.tolist() == [2, 0, 0]


def test_members_of_groups_stay_on_the_host():
    result = fit(members=3, group=2)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves((result.ts.params, result.best)))


@pytest.mark.filterwarnings("ignore:fit. the loss of step:RuntimeWarning")
@pytest.mark.parametrize("group", [None, 1])
def test_a_member_that_diverged_has_no_scores_after(group):
    make = lambda hyper: train.Run(  # noqa: E731
        nn.dense(2), losses.cross_entropy, optim.sgd(hyper["rate"]), batch_size=4, metrics=(accuracy,)
    )
    hyper = {"rate": [0.1, 3e38]}
    found = train.sweep(make, hyper, DATA, validation=HELD_OUT, epochs=3, group=group, progress=False)
    for record in found.result.history:
        for name in ("loss", "validation_loss", "validation_accuracy"):
            assert np.isfinite(record[name]).tolist() == [True, False], (name, record)
    assert [row["diverged"] for row in found.table] == [0, 1]


def test_patience_without_validation_is_refused():
    with pytest.raises(ValueError, match=r"patience=2 needs validation data; pass validation="):
        fit(members=2, validation=None, patience=2)
