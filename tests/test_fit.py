"""The host's loop: it drives the run and changes no bit of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_runs import DATA, HELD_OUT, KEY, NET, RUN, X, Y, assert_equal, assert_same_result, fit, make_run

from nnjax import data, losses, metrics, nn, optim, train
from nnjax.train.engine import device_loop
from nnjax.train.engine.device_loop import MemberArgs, train_chunk
from nnjax.train.engine.ensemble import Ensemble, stack_tree
from nnjax.train.engine.fit_state import initial_fit_state
from nnjax.types import Data

PLAIN = make_run(nn.serial(nn.dense(5), jnp.tanh, nn.dense(2)), batch_size=50)  # more than there are examples


def test_fit_is_steps():
    """The same numbers as the scan, to rounding: the losses of the first steps, before training amplifies it."""
    _, log = jax.jit(RUN.steps, static_argnames="n")(RUN.init(KEY, DATA), DATA, n=10)
    np.testing.assert_allclose(fit().losses[:10], log["loss"], rtol=1e-3)


def test_rows_drawn_in_blocks_change_no_bit(monkeypatch, optimizing_compiler):
    whole = fit()
    monkeypatch.setattr(device_loop, "ROWS", 12)  # three steps at a time
    assert_same_result(fit(make_run()), whole)


def test_the_callers_arrays_survive():
    """Chunks give their argument's memory away, but not the caller's."""
    key = jax.random.key(5)
    x, y = jnp.array(X), jnp.array(Y)
    fit(data=Data(x, y), key=key)
    for leaf in (jax.random.key_data(key), x, y):
        assert not leaf.is_deleted()


def test_chunks_give_their_memory_on():
    ts = jax.tree.map(jnp.copy, RUN.init(jax.random.key(0), DATA))
    fs = stack_tree(initial_fit_state(ts, validated=False, stopped=jnp.zeros((), bool)))
    train_chunk(Ensemble(RUN), fs, MemberArgs(until=jnp.ones(1, jnp.int32)), DATA, np.int32(1))
    assert fs.train.params[0]["w"].is_deleted()


def test_epochs_end_where_every_example_was_seen():
    assert train.epoch_ends(3, n=10, batch_size=4) == [3, 5, 8]
    assert train.epoch_ends(0.5, n=10, batch_size=4) == [2]
    assert train.epoch_ends(0, n=10, batch_size=4) == []


def test_history():
    result = fit()
    assert [(record["epoch"], record["step"]) for record in result.history] == [(1, 5), (2, 10), (3, 15)]
    for i, record in enumerate(result.history):
        np.testing.assert_allclose(record["loss"], result.losses[5 * i : 5 * i + 5].mean(), rtol=1e-6)
        assert record.keys() >= {"validation_loss", "validation_accuracy"}
    last = RUN.evaluate(result.ts, HELD_OUT)
    np.testing.assert_allclose(result.history[-1]["validation_loss"], last["loss"], rtol=1e-5)


def test_validate_every():
    result = fit(epochs=5, validate_every=2)
    assert [record["epoch"] for record in result.history if "validation_loss" in record] == [2, 4, 5]


def test_epochs_without_a_step_of_their_own_have_no_record():
    with pytest.warns(UserWarning, match="larger than the 20 examples"):
        result = fit(PLAIN, epochs=4.5)
    assert [record["step"] for record in result.history] == [1, 2]
    assert all(np.isfinite(record["loss"]) for record in result.history)


def test_a_part_of_an_epoch_is_recorded_as_such():
    assert [record["epoch"] for record in fit(epochs=2.4).history] == [1, 2, 2.4]
    assert train.epoch_ends(1.1, n=50, batch_size=1) == [50, 55]


def test_labels_of_other_losses_are_not_classes():
    """A custom loss of counts, with two outputs."""
    run = train.Run(
        nn.dense(2), lambda p, y: jnp.square(p[:, 0] - y.astype(p.dtype)) + p[:, 1] ** 2, optim.sgd(1e-3), batch_size=4
    )
    result = train.fit(run, (X, jnp.arange(20)), epochs=1, progress=False)
    assert result.losses.shape == (5,)


def test_no_epochs():
    result = fit(epochs=0)
    assert int(result.ts.step) == 0
    assert result.history == []
    assert result.losses.shape == (0,)


CALLBACKS = {  # settings, and the steps at which callbacks run: the same for all chunks
    "each epoch": ({"epochs": 4}, [5, 10, 15, 20]),
    "part of an epoch": ({"epochs": 2.5}, [5, 10, 13]),
    "every 6 steps": ({"callback_every": 6, "epochs": 4}, [6, 12, 18]),
    "every 40 steps": ({"callback_every": 40, "epochs": 4}, []),
    "an epoch shorter than a batch": ({"run": PLAIN, "epochs": 5}, [1, 2]),
}


@pytest.mark.filterwarnings("ignore:fit. batch_size")
@pytest.mark.parametrize("members", [None, 3])
@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_run_at_fixed_points(name, members):
    settings, steps = CALLBACKS[name]
    for chunk_steps in (1, 4, None):
        seen = []

        def record_losses(ts, record, seen=seen):
            seen.append((record["step"], np.asarray(ts.step).tolist(), np.asarray(record["loss"])))

        result = fit(**settings, chunk_steps=chunk_steps, members=members, callbacks=[record_losses])
        assert [step for step, _, _ in seen] == steps
        assert [at for _, at, _ in seen] == [step if members is None else [step] * members for step in steps]
        assert not result.ended_by_callback
        for (step, _, loss), start in zip(seen, [0, *steps], strict=False):
            np.testing.assert_allclose(loss, result.losses[..., start:step].mean(-1), rtol=1e-6)


@pytest.mark.parametrize("answer", [True, np.True_])
def test_only_true_ends_the_run(answer):
    result = fit(callbacks=[lambda ts, record: record["step"] >= 10 and answer])
    assert result.ended_by_callback
    assert int(result.ts.step) == 10
    assert result.losses.shape == (10,)
    with pytest.raises(TypeError, match=r"callback must return True to end the run, .* got 8"):
        fit(callbacks=[lambda ts, record: 8])  # as file.write returns


def test_an_equal_score_is_no_improvement():
    """With a learning rate of 0 all scores are equal: the first network is the best, and patience counts the rest."""
    result = fit(make_run(nn.dense(2), optimizer=optim.sgd(0.0)), epochs=6, validation=HELD_OUT, patience=2)
    assert int(result.best.step) == 5
    assert int(result.ts.step) == 15
    assert result.stopped


@pytest.mark.parametrize("members", [None, 3])
def test_states_of_callbacks_stay_valid(members):
    states = []
    result = fit(epochs=4, members=members, callbacks=[lambda ts, record: states.append(ts)])
    assert [int(np.max(ts.step)) for ts in states] == [5, 10, 15, 20]
    assert_equal(states[-1], result.ts)


def test_callbacks_see_the_last_validation():
    records = []
    result = fit(epochs=4, validate_every=3, callbacks=[lambda ts, record: records.append(record)])
    assert [("validation_loss" in record) for record in records] == [False, False, True, True]
    assert records[-1]["validation_loss"] == result.history[-1]["validation_loss"]
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]


def test_full_batch():
    result = fit(make_run(batch_size=None), epochs=4)
    assert result.losses.shape == (4,)
    assert result.losses[-1] < result.losses[0]


def test_batch_larger_than_the_data():
    with pytest.warns(UserWarning, match="batch_size 32 is larger than the 20 examples"):
        result = fit(make_run(batch_size=32), epochs=8)
    assert result.losses.shape == (5,)
    assert np.isfinite(result.losses).all()


def test_batch_larger_than_one_example():
    with pytest.warns(UserWarning, match=r"batch_size 32 is larger than the one example, so"):
        train.fit(make_run(batch_size=32), (X[:1], Y[:1]), epochs=32)


def test_loss_that_is_not_finite_is_reported_once():
    run = train.Run(nn.dense(1), losses.squared_error, optim.sgd(1e6), batch_size=4)
    with pytest.warns(RuntimeWarning, match=r"the loss of step \d+ is (inf|nan)") as caught:
        result = train.fit(run, (X, X[:, :1]), epochs=20, chunk_steps=5, progress=False)
    assert len(caught) == 1
    step = int(str(caught[0].message).split("step ")[1].split()[0])
    assert np.isfinite(result.losses[:step]).all()
    assert not np.isfinite(result.losses[step])


def test_label_out_of_range_is_named_before_training():
    with pytest.raises(ValueError, match=r"label 2 in row 3 is outside 0 … 1"):
        train.fit(RUN, (X, Y.at[3].set(2)), epochs=1)
    with pytest.raises(ValueError, match=r"validation\.y: label -1 in row 0"):
        train.fit(RUN, DATA, validation=(X, Y.at[0].set(-1)), epochs=1)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"epochs must be in \[0, inf\), got -1"):
        fit(epochs=-1)
    with pytest.raises(ValueError, match="chunk_steps must be ≥ 1, got 0"):
        fit(chunk_steps=0)
    with pytest.raises(TypeError, match=r"must be a train\.Run"):
        train.fit(NET, DATA, epochs=1)
    with pytest.raises(TypeError, match="key must be a random key"):
        fit(key="0")


def test_digits_are_learned():
    digits = data.load("digits")
    run = train.Run(
        nn.mlp([64], 10, norm="batch"),
        losses.cross_entropy,
        optim.adam(3e-3),
        batch_size=32,
        metrics=(metrics.accuracy,),
    )
    result = train.fit(run, digits.train, validation=digits.test, epochs=12, progress=False)
    assert result.history[-1]["validation_accuracy"] > 0.96


def test_a_thousand_blocks_train():
    digits = data.load("digits").train
    run = train.Run(nn.residual_mlp(16, 1000, 10), losses.cross_entropy, optim.adam(1e-3), batch_size=32)
    result = train.fit(run, digits, epochs=0.5, progress=False)
    assert result.losses[-5:].mean() < 0.8 * result.losses[:3].mean()
