"""Ensembles: each member is the lone run with its key, whatever else runs beside it."""

import logging
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import promoting
from test_run import assert_equal

from nnjax import losses, metrics, nn, optim, train
from nnjax.train.engine.device_loop import MemberArgs, train_chunk
from nnjax.train.engine.ensemble import Ensemble
from nnjax.train.engine.fit_state import initial_fit_state
from nnjax.types import Data

N, STEPS = 20, 5  # rows, and steps in an epoch
KEY = jax.random.key(3)
KEYS = jax.random.split(KEY, 3)
X = jax.random.normal(jax.random.key(1), (N, 4))
Y = jnp.asarray(np.random.default_rng(0).integers(0, 2, N), jnp.int32)  # nothing to learn: validation losses will rise
PLAIN = Data(X, Y)
WEIGHTED = Data(X, Y, jnp.linspace(0.0, 2.0, N))
HELD_OUT = Data(X[:7] + 0.5, Y[:7])

NET = nn.serial(nn.dense(4, bias=False), nn.batch_norm(), jax.nn.relu, nn.dropout(0.2), nn.dense(2))
CONV = nn.serial(nn.reshape((4, 1)), nn.conv(2, 3), jax.nn.relu, nn.max_pool(2), nn.flatten(), nn.dense(2))
NOISY = optax.chain(promoting(optax.add_noise)(0.01, 0.5, jax.random.key(9)), optim.momentum(0.1))
RUN = train.Run(NET, losses.cross_entropy, optim.adam(0.05), batch_size=4, metrics=(metrics.accuracy,))
CASES = {  # run, data
    "batch_norm, dropout, adam": (RUN, PLAIN),
    "convolution, an optimizer that draws, weights, micro-batches of the full batch": (
        train.Run(CONV, losses.cross_entropy, NOISY, batch_size=None, micro_batches=2), WEIGHTED),
}  # fmt: skip
STRATEGIES = pytest.mark.parametrize("strategy", ["map", "vmap"])


def fit(run=RUN, data=PLAIN, **settings):
    """Always validated, so that most tests share their programs."""
    return train.fit(run, data, **{"epochs": 3, "validation": HELD_OUT, "progress": False} | settings)


def of(tree, i):
    return jax.tree.map(lambda a: a[i], tree)


def assert_same_history(a, b):
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name])


def assert_close(a, b, rtol=1e-5):
    """Relative to the largest number of each leaf."""
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if not jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(one, other, rtol=0, atol=rtol * np.abs(other).max(initial=0))


# A member is the lone run with its key -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_members_of_map_are_lone_runs_to_the_bit(case):
    run, data = CASES[case]
    many = fit(run, data, key=KEYS)
    for i, key in enumerate(KEYS):
        alone = fit(run, data, key=key)
        assert_equal(of((many.ts, many.best), i), (alone.ts, alone.best))
        np.testing.assert_array_equal(many.losses[i], alone.losses)
        assert many.history[-1]["validation_loss"][i] == alone.history[-1]["validation_loss"]
    assert not np.array_equal(many.losses[0], many.losses[1])


def begun(ts):
    """A copy, for a chunk takes the memory."""
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
            train_chunk(Ensemble(run, 3, strategy), begun(ts), MemberArgs(until=until), data, np.int32(1))
            for strategy in ("map", "vmap")
        )
        np.testing.assert_allclose(log_a["loss"][:, 0], log_b["loss"][:, 0], rtol=1e-5)
        assert_close(b.train, a.train)
        np.testing.assert_array_equal(a.train.step, until)
        np.testing.assert_array_equal(b.train.step, until)


@STRATEGIES
def test_keys_of_members_are_split_from_the_key(strategy):
    assert_equal(fit(members=3, key=KEY, strategy=strategy).ts, fit(key=KEYS, strategy=strategy).ts)


@STRATEGIES
def test_members_have_a_leading_axis(strategy):
    result = fit(key=KEYS, strategy=strategy)
    assert result.losses.shape == (3, 15)
    assert result.diverged.tolist() == [-1] * 3
    assert result.stopped.tolist() == [False] * 3
    assert result.ts.params[0]["w"].shape == (3, 4, 4)
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


def test_one_member_is_an_ensemble_of_one():
    one, alone = fit(members=1, key=KEY), fit(key=jax.random.split(KEY, 1)[0])
    assert one.losses.shape == (1, 15)
    assert one.history[0]["loss"].shape == (1,)
    assert_equal(of((one.ts, one.best), 0), (alone.ts, alone.best))


def test_members_that_share_a_key_warn():
    with pytest.warns(UserWarning, match="members share a key: they are the same network"):
        result = fit(key=KEYS[jnp.array([0, 1, 0])])
    assert_equal(of(result.ts, 0), of(result.ts, 2))


def test_wrong_members_are_named():
    with pytest.raises(ValueError, match="members=4, but there are keys for 3; leave members out"):
        fit(key=KEYS, members=4)
    with pytest.raises(ValueError, match="members must be ≥ 1, got 0"):
        fit(members=0)
    with pytest.raises(TypeError, match=r"members must be an integer, got 2\.0"):
        fit(members=2.0)
    with pytest.raises(ValueError, match=r"unknown strategy 'pmap'.*known are map, vmap"):
        fit(members=2, strategy="pmap")
    with pytest.raises(ValueError, match="group must be ≥ 1, got 0"):
        fit(members=2, group=0)


# Chunks, groups, programs --------------------------------------------------------------------------------------------


@STRATEGIES
@pytest.mark.parametrize("chunk_steps", [1, 2, 7, 1000])
def test_chunks_change_no_bit_of_members(strategy, chunk_steps):
    """Early stopping included."""
    whole, cut = (fit(key=KEYS, strategy=strategy, epochs=9, patience=2, chunk_steps=c) for c in (None, chunk_steps))
    assert_equal((cut.ts, cut.best), (whole.ts, whole.best))
    np.testing.assert_array_equal(cut.losses, whole.losses)
    np.testing.assert_array_equal(cut.stopped, whole.stopped)
    assert_same_history(cut.history, whole.history)


@pytest.mark.parametrize("group", [1, 2, 3])
def test_groups_of_map_change_no_bit(group):
    """Not of histories, either, where a group stops before the others."""
    keys = jax.random.split(KEY, 5)
    many = fit(key=keys, epochs=9, patience=2, group=group)
    assert many.losses.shape == (5, 45)
    assert many.stopped.any()
    assert len(set(np.asarray(many.ts.step).tolist())) > 1
    alone = [fit(key=key, epochs=9, patience=2) for key in keys]
    for i, one in enumerate(alone):
        assert_equal(of((many.ts, many.best), i), (one.ts, one.best))
        np.testing.assert_array_equal(many.losses[i, : len(one.losses)], one.losses)
        assert np.isnan(many.losses[i, len(one.losses) :]).all()
        for e, record in enumerate(many.history):  # a stopped network stays as it is
            last = one.history[min(e, len(one.history) - 1)]
            assert record["validation_loss"][i] == last["validation_loss"]
    assert len(many.history) == max(len(one.history) for one in alone)


def test_groups_of_vmap_agree_to_rounding():
    """After one step."""
    keys = jax.random.split(KEY, 6)
    many = fit(key=keys, strategy="vmap", group=3, epochs=1 / STEPS)
    for i, key in enumerate(keys):
        alone = fit(key=key, epochs=1 / STEPS)
        assert_close(of(many.ts, i), alone.ts)
        np.testing.assert_allclose(many.losses[i], alone.losses, rtol=1e-5)


def linear(hyper):
    return train.Run(nn.dense(1), losses.squared_error, optim.sgd(hyper["rate"]), batch_size=4)


def swept(rates, strategy="map", **settings):
    data, held_out = Data(X, X[:, :1]), Data(X[:6], X[:6, :1])
    return train.sweep(
        linear, {"rate": rates}, data, validation=held_out, strategy=strategy, progress=False,
        **{"epochs": 8} | settings,
    ).result  # fmt: skip


@pytest.mark.parametrize(
    "again",
    [
        lambda **how: fit(key=KEYS[how["i"]], **how["settings"]),
        lambda **how: fit(key=jax.random.split(KEYS[how["i"]], 3), **how["settings"]),
        lambda **how: fit(key=jax.random.split(KEYS[how["i"]], 3), strategy="vmap", **how["settings"]),
        lambda **how: swept([0.01 * (1 + how["i"]), 0.02, 0.03], key=KEYS[how["i"]], epochs=2 + how["i"]),
    ],
    ids=["lone", "map", "vmap", "sweep"],
)
def test_a_second_call_compiles_nothing(again, caplog):
    """With another key, other numbers, epochs and chunks."""
    again(i=0, settings={"epochs": 2})
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        again(i=1, settings={"epochs": 4.3, "chunk_steps": 3, "patience": 3, "validate_every": 2})
    assert not [record.getMessage() for record in caplog.records if "ompiling" in record.getMessage()]


# Early stopping ------------------------------------------------------------------------------------------------------


@STRATEGIES
@pytest.mark.parametrize(("patience", "every"), [(1, 1), (3, 1), (2, 2)])
def test_early_stopping_is_a_loop_that_stops_each_member_alone(strategy, patience, every):
    epochs = 11
    at = {e: fit(key=KEYS, strategy=strategy, epochs=e) for e in range(1, epochs + 1)}
    evaluate = jax.jit(RUN.evaluate)
    stopped = fit(key=KEYS, strategy=strategy, epochs=epochs, patience=patience, validate_every=every)
    ends = []
    for i in range(3):
        lowest, best, waited = np.inf, 0, 0
        for end in [*range(every, epochs + 1, every), *([epochs] if epochs % every else [])]:
            score = float(evaluate(of(at[end].ts, i), HELD_OUT)["loss"])
            lowest, best, waited = (score, end, 0) if score < lowest else (lowest, best, waited + 1)
            if waited == patience:
                break
        ends.append(end)
        assert stopped.stopped[i] == (waited == patience)
        assert_equal(of(stopped.ts, i), of(at[end].ts, i))
        np.testing.assert_array_equal(stopped.losses[i, : STEPS * end], at[end].losses[i])
        assert np.isnan(stopped.losses[i, STEPS * end :]).all()
        assert_equal(of((stopped.best.params, stopped.best.state), i), of((at[best].ts.params, at[best].ts.state), i))
        assert stopped.best.step[i] == STEPS * best
        np.testing.assert_allclose(stopped.best.score[i], lowest, rtol=1e-6)
    assert len(stopped.history) == max(ends)
    assert (patience > 1) or len(set(ends)) > 1


def test_a_member_stops_as_the_lone_run_does():
    many = fit(key=KEYS, epochs=11, patience=1)
    for i, key in enumerate(KEYS):
        alone = fit(key=key, epochs=11, patience=1)
        assert_equal(of((many.ts, many.best), i), (alone.ts, alone.best))
        assert many.stopped[i] == alone.stopped
        assert alone.losses.shape == (int(many.ts.step[i]),)


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
        assert_equal(of((broken.ts, broken.best), i), of((whole.ts, whole.best), i))
        np.testing.assert_array_equal(broken.losses[i], whole.losses[i])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        short = swept([0.01, 1e4, 0.03], strategy, epochs=(step + 1) * 4 / N)
    np.testing.assert_array_equal(of(broken.ts.params["w"], 1), of(short.ts.params["w"], 1))


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
        nn.dense(2), losses.cross_entropy, optim.sgd(hyper["rate"]), batch_size=4, metrics=(metrics.accuracy,)
    )
    hyper = {"rate": [0.1, 1e38]}
    found = train.sweep(make, hyper, PLAIN, validation=HELD_OUT, epochs=3, group=group, progress=False)
    for record in found.result.history:
        for name in ("loss", "validation_loss", "validation_accuracy"):
            assert np.isfinite(record[name]).tolist() == [True, False], (name, record)
    assert [row["diverged"] for row in found.table] == [0, 1]


def test_patience_without_validation_is_refused():
    with pytest.raises(ValueError, match=r"patience=2 waits for validations; give validation="):
        fit(members=2, validation=None, patience=2)
