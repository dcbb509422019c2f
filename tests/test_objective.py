"""Any objective, any step: what a run minimises and logs, runs without data, and other `Trainable`s."""

from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from train_runs import (
    BATCH,
    DATA,
    HELD_OUT,
    KEY,
    KEYS,
    NET,
    RATE,
    assert_close,
    assert_equal,
    fit,
    make_run,
    own_rows,
    stop_at,
    take,
)

from nnjax import data, losses, metrics, nn, optim, train
from nnjax.train.engine import progress
from nnjax.types import Data, Layer, TrainState

PLAIN = train.objective_of(NET, losses.cross_entropy)
CURVE = nn.mlp([16], 1)


def penalised(params, state, batch, *, train, key):
    values, state, log = PLAIN(params, state, batch, train=train, key=key)
    penalty = 1e-3 * optax.tree.norm(params, squared=True)
    return values + penalty, state, log | {"penalty": penalty, "correct": jnp.asarray(3, jnp.int32)}


def fitted_curve(params, state, batch, *, train, key):
    """Approximate sin(3 t) at points drawn in each step: a run without data."""
    t = jax.random.uniform(key, (8, 1))
    y, _ = CURVE.apply(params, state, t, train=train)
    return (y[:, 0] - jnp.sin(3 * t[:, 0])) ** 2, state, {"largest": jnp.abs(y).max()}


PENALISED = train.Run(
    NET, objective=penalised, optimizer=optim.adam(RATE), batch_size=BATCH, step_metrics=(train.grad_norm,)
)
WITHOUT_DATA = train.Run(
    Layer("curve", lambda key, _: CURVE.init(key, jnp.zeros((1, 1))), CURVE.apply),
    objective=fitted_curve,
    optimizer=optim.adam(RATE),
    batch_size=None,
)


@dataclass(frozen=True)
class Descent:
    """A custom update rule: sign descent on a linear model."""

    batch_size: int | None
    rate: float = 0.01

    def init(self, key, data):
        return TrainState(jnp.zeros((), jnp.int32), jax.random.normal(key, (3,)), (), jnp.zeros(()), key)

    def step(self, ts, batch):
        loss, grad = jax.value_and_grad(self._loss)(ts.params, batch)
        new = ts._replace(step=ts.step + 1, params=ts.params - self.rate * jnp.sign(grad))
        return new, {"loss": loss, "slope": jnp.abs(grad).max()}

    def evaluate(self, ts, data):
        return {"loss": self._loss(ts.params, data), "per_weight": ts.params}

    @staticmethod
    def _loss(params, batch):
        return jnp.mean((batch.x @ params - batch.y.astype(params.dtype)) ** 2)


def test_a_loss_is_a_short_form_of_its_objective():
    run = train.Run(NET, objective=PLAIN, optimizer=optim.adam(RATE), batch_size=BATCH)
    general, short = fit(run), fit(make_run(metrics=()))
    assert_equal(general.ts, short.ts)
    np.testing.assert_array_equal(general.losses, short.losses)
    for a, b in zip(general.history, short.history, strict=True):
        np.testing.assert_allclose(a["validation_loss"], b["validation_loss"], rtol=1e-6)


def test_logs_are_recorded_for_each_step_and_averaged_over_epochs():
    result = fit(PENALISED, members=3)
    assert list(result.log) == ["loss", "correct", "grad_norm", "penalty"]
    ts, data = PENALISED.init(jax.random.split(KEY, 3)[1], DATA), DATA
    ts, log = jax.jit(PENALISED.steps, static_argnames="n")(ts, data, n=15)
    for name, values in result.log.items():
        assert values.shape == (3, 15)
        np.testing.assert_allclose(values[1], log[name], rtol=2e-5)
        np.testing.assert_allclose(result.history[1][name], values[:, 5:10].mean(1), rtol=1e-6)
    assert (result.log["correct"] == 3).all()
    assert result.history[-1]["validation_penalty"].shape == (3,)


@pytest.mark.parametrize("run", [PENALISED, Descent(BATCH)], ids=["objective", "own step"])
def test_chunks_and_resuming_change_no_bit_of_logs(tmp_path, run):
    again = partial(fit, run, members=2)
    whole = again()
    again(out=tmp_path, chunk_steps=2, callbacks=[stop_at(8)], callback_every=4, epochs=2)
    resumed = again(out=tmp_path, resume=True, chunk_steps=3)
    assert_equal(whole.ts, resumed.ts)
    assert_equal(whole.log, resumed.log)
    for a, b in zip(whole.history, resumed.history, strict=True):
        chex.assert_trees_all_equal(a, b)


def test_step_metrics_measure_gradient_and_update():
    run = train.Run(
        nn.dense(2),
        losses.cross_entropy,
        optim.sgd(0.5),
        batch_size=None,
        step_metrics=(train.grad_norm, train.update_norm),
    )
    ts = run.init(KEY, DATA)

    def loss(params):
        return losses.cross_entropy(DATA.x @ params["w"] + params["b"][None], DATA.y).mean()

    grads = jax.grad(loss)(ts.params)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(grads)))
    log = fit(run, epochs=1).log
    np.testing.assert_allclose(log["grad_norm"], [norm], rtol=1e-5)
    np.testing.assert_allclose(log["update_norm"], [0.5 * norm], rtol=1e-5)


def test_an_objective_draws_the_same_numbers_in_each_evaluation():
    ts = WITHOUT_DATA.init(KEY)
    once, again = WITHOUT_DATA.evaluate(ts), WITHOUT_DATA.evaluate(ts._replace(step=ts.step + 1))
    assert once == again
    assert once["loss"] != WITHOUT_DATA.evaluate(ts._replace(key=KEYS[0]))["loss"]


def test_a_run_without_data_takes_steps(tmp_path):
    whole = train.fit(WITHOUT_DATA, steps=250, key=KEY, progress=False)
    assert [record["step"] for record in whole.history] == [100, 200, 250]
    assert whole.history[-1]["loss"] < 0.25 * whole.history[0]["loss"]
    train.fit(WITHOUT_DATA, steps=120, key=KEY, out=tmp_path, progress=False)
    resumed = train.fit(WITHOUT_DATA, steps=250, key=KEY, out=tmp_path, resume=True, progress=False)
    assert_equal(whole.ts, resumed.ts)
    assert_equal(whole.log, resumed.log)
    assert float(WITHOUT_DATA.evaluate(whole.ts)["loss"]) < 0.05


def test_a_run_without_data_gets_a_batch_without_arrays():
    seen = []

    def objective(params, state, batch, *, train, key):
        seen.append(batch)
        return jnp.square(params), state, {}

    net = Layer("numbers", lambda key, x: (jnp.ones(2), ()), CURVE.apply)
    run = train.Run(net, objective=objective, optimizer=optim.sgd(0.1), batch_size=None)
    result = train.fit(run, steps=1, progress=False)
    assert set(seen) == {Data((), ())}
    assert result.losses.tolist() == [1.0]  # the mean of the two losses
    np.testing.assert_allclose(result.ts.params, 1 - 0.1 * np.ones(2))  # each has half of the weight


def test_validation_of_a_run_without_data_says_what_to_do():
    with pytest.raises(ValueError, match="one number per example") as caught:
        train.fit(WITHOUT_DATA, steps=3, validation=(jnp.ones((5, 1)), None))
    assert any("omit validation=, and compute scores in a callback" in note for note in caught.value.__notes__)
    scores = []

    def callback(ts, record):
        scores.append(float(WITHOUT_DATA.evaluate(ts)["loss"]))

    train.fit(WITHOUT_DATA, steps=200, callbacks=[callback])
    assert len(scores) == 2
    assert scores[1] < scores[0]


def test_runs_without_data_are_swept_compared_planned_and_replayed():
    def make(hyper):
        return train.Run(WITHOUT_DATA.net, objective=fitted_curve, optimizer=optim.adam(hyper["rate"]), batch_size=None)

    table = train.sweep(make, {"rate": [1e-5, 0.05]}, steps=100, progress=False).table
    assert [round(row["rate"], 5) for row in table] == [0.05, 1e-5]
    assert table[0]["largest"] > 0
    slow = train.Run(WITHOUT_DATA.net, objective=fitted_curve, optimizer=optim.sgd(1e-4), batch_size=None)
    assert train.compare(slow, WITHOUT_DATA, steps=100, seeds=3, progress=False).differences["largest"].n == 3
    assert train.plan(WITHOUT_DATA, members=2, measure=False).params == 49
    assert train.replay(WITHOUT_DATA, steps=10, step=5).step == 5


def test_the_networks_of_a_folder_are_loaded_without_data(tmp_path):
    optimizer = optax.chain(optim.adam(RATE), optim.params_ema(0.8))
    run = make_run(optimizer=optimizer, evaluation_params=optim.averaged)
    for members in (None, 2):
        out = tmp_path / str(members)
        result = fit(run, out=out, members=members)
        saved = train.load(out)
        assert_equal(saved[:3], (result.ts.params, result.ts.state, result.best))
        assert_equal(saved.average, optim.averaged(result.ts.opt_state))
        (out / "weights.safetensors").unlink()  # as in an unfinished run
        unfinished = train.load(out)
        assert_equal(unfinished[:2], (result.ts.params, result.ts.state))
        assert unfinished.average is None
    fit(out=tmp_path / "plain", validation=None)
    assert train.load(tmp_path / "plain")[2:] == (None, None)


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path):
    fit(out=tmp_path, epochs=1)
    path = tmp_path / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged: SHA-256 mismatch"):
        train.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"neither weights\.safetensors nor checkpoints"):
        train.load(tmp_path / "nothing")


def test_steps_are_a_fraction_of_epochs():
    by_steps, by_epochs = fit(epochs=None, steps=7), fit(epochs=7 * BATCH / 20)
    assert_equal(by_steps.ts, by_epochs.ts)
    assert [record["step"] for record in by_steps.history] == [5, 7]


def test_validation_uses_averages_and_best_keeps_them():
    optimizer = optax.chain(optim.adam(RATE), optim.params_ema(0.8))
    averaging = make_run(optimizer=optimizer, evaluation_params=optim.averaged)
    result, plain = fit(averaging, members=2, epochs=4), fit(make_run(optimizer=optimizer), members=2, epochs=4)
    assert_equal(result.ts, plain.ts)  # training is the same
    for i in range(2):
        ts = jax.tree.map(lambda a, i=i: a[i], result.ts)
        score = averaging.evaluate(ts, HELD_OUT)["loss"]
        np.testing.assert_allclose(result.history[-1]["validation_loss"][i], score, rtol=1e-5)
        average = ts._replace(params=optim.averaged(ts.opt_state))
        np.testing.assert_allclose(make_run().evaluate(average, HELD_OUT)["loss"], score, rtol=1e-5)
        best = jax.tree.map(lambda a, i=i: a[i], result.best)
        np.testing.assert_allclose(averaging.evaluate(best, HELD_OUT)["loss"], best.score, rtol=1e-5)
    assert np.abs(result.history[-1]["validation_loss"] - plain.history[-1]["validation_loss"]).min() > 1e-6


def test_schedule_free_is_evaluated_at_its_average():
    optimizer = optax.contrib.schedule_free(optim.sgd(RATE), RATE, b1=0.9)
    run = make_run(optimizer=optimizer, evaluation_params=optax.contrib.schedule_free_eval_params)
    result = fit(run)
    params = optax.contrib.schedule_free_eval_params(result.ts.opt_state, result.ts.params)
    expected = make_run().evaluate(result.ts._replace(params=params), HELD_OUT)["loss"]
    np.testing.assert_allclose(result.history[-1]["validation_loss"], expected, rtol=1e-5)


def test_steps_that_are_not_finite_can_be_skipped():
    def loss(prediction, target):
        return losses.cross_entropy(prediction, target) / jnp.where(target.sum() == target.size, 0.0, 1.0)

    def make(**settings):
        return train.Run(NET, loss, optim.adam(RATE), batch_size=2, skip_nonfinite=True, **settings)

    result = fit(make())
    skipped = result.log["skipped"] > 0
    assert 0 < skipped.sum() < len(skipped)
    assert int(result.ts.step) == len(skipped)
    assert int(result.diverged) == -1
    np.testing.assert_array_equal(skipped, ~np.isfinite(result.losses))
    assert np.isfinite([record["loss"] for record in result.history]).all()
    np.testing.assert_allclose(np.mean([record["skipped"] for record in result.history]), skipped.mean(), rtol=1e-6)
    step = int(np.flatnonzero(skipped)[-1])
    before, after = (fit(make(), epochs=None, steps=n).ts for n in (step, step + 1))
    assert_equal(before._replace(step=after.step), after)
    with pytest.warns(train.DivergedWarning, match="skip_nonfinite=True"):
        assert int(fit(train.Run(NET, loss, optim.adam(RATE), batch_size=2)).diverged) == np.flatnonzero(skipped)[0]


@pytest.mark.parametrize(("members", "who"), [(None, "all steps were"), (2, "all steps of members 0, 1 were")])
def test_a_run_that_skips_every_step_warns(members, who):
    def loss(prediction, target):
        return losses.cross_entropy(prediction, target) * jnp.nan

    run = train.Run(NET, loss, optim.adam(RATE), batch_size=BATCH, skip_nonfinite=True)
    with pytest.warns(RuntimeWarning, match=who):
        result = fit(run, members=members, validation=None)
    assert (result.log["skipped"] == 1).all()


def test_metrics_may_be_vectors_and_dicts(tmp_path):
    def per_class(prediction, target, weights):
        return jnp.stack([(target == c).mean() for c in range(2)])

    def shares(prediction, target, weights):
        return {"ones": (target == 1).mean(), "both": per_class(prediction, target, weights)}

    run = make_run(metrics=(per_class, shares, metrics.accuracy))
    lone, many = fit(run), fit(run, members=2, out=tmp_path, epochs=2)
    expected = [float((HELD_OUT.y == c).mean()) for c in range(2)]
    np.testing.assert_allclose(lone.history[0]["validation_per_class"], expected, rtol=1e-6)
    np.testing.assert_allclose(lone.history[0]["validation_shares/ones"], expected[1], rtol=1e-6)
    assert many.history[0]["validation_shares/both"].shape == (2, 2)
    resumed, whole = fit(run, members=2, out=tmp_path, resume=True), fit(run, members=2)
    for a, b in zip(resumed.history, whole.history, strict=True):
        chex.assert_trees_all_equal(a, b)


def test_start_continues_from_parameters():
    first = fit(members=2)
    ts = jax.tree.map(lambda a: a[1], first.ts)
    second = fit(start=ts, epochs=1)
    by_hand = make_run().init(KEY, DATA)._replace(params=ts.params, state=ts.state)
    by_hand = by_hand._replace(opt_state=optim.adam(RATE).init(ts.params))
    expected, _ = jax.jit(make_run().steps, static_argnames="n")(by_hand, DATA, n=5)
    chex.assert_trees_all_close(second.ts.params, expected.params, rtol=1e-4, atol=1e-6)
    shared = fit(start=ts, members=2, epochs=0)
    each = fit(start=first.ts, members=2, epochs=0)
    assert_equal(jax.tree.map(lambda a: a[0], shared.ts.params), ts.params)
    assert_equal(each.ts.params, first.ts.params)
    assert_equal(each.ts.state, first.ts.state)
    drawn = fit(start=ts.params, epochs=0).ts.state
    assert_equal(drawn, make_run().init(KEY, DATA).state)


def test_the_start_is_part_of_the_fingerprint(tmp_path):
    start = fit(epochs=1).ts
    fit(start=start, out=tmp_path, epochs=1)
    assert_equal(fit(start=start, out=tmp_path, resume=True, epochs=2).ts, fit(start=start, epochs=2).ts)
    with pytest.raises(train.RunMismatchError, match="start"):
        fit(out=tmp_path, resume=True, epochs=2)


def test_a_sampler_draws_the_rows():
    def first_rows(key, step, n, batch_size):
        return (jnp.arange(batch_size) + step) % jnp.minimum(n, 5)

    run = make_run(sampler=first_rows)
    moved = jax.tree.map(lambda a: jnp.concatenate([a[:5], jnp.zeros_like(a[5:])]), DATA)
    assert_equal(fit(run).ts, fit(run, moved).ts)
    assert run.rows(KEY, 3, 20, 1).tolist() == [[3, 4, 0, 1]]


def test_the_sampler_is_part_of_the_fingerprint(tmp_path):
    def fixed(offset):
        def sampler(key, step, n, batch_size):
            return (jnp.arange(batch_size) + offset) % n

        return make_run(sampler=sampler)

    fit(fixed(0), out=tmp_path, epochs=1)
    whole = fit(fixed(0), epochs=2)
    assert_equal(fit(fixed(0), out=tmp_path, epochs=2, resume=True).ts, whole.ts)  # an equal sampler, made again
    balanced = [make_run(sampler=data.class_balanced(labels)) for labels in (np.arange(20) % 2, np.arange(20) % 4)]
    for different in (fixed(1), make_run(), balanced[0]):
        with pytest.raises(train.RunMismatchError, match="sampler"):
            fit(different, out=tmp_path, epochs=3, resume=True)
    source = data.source(np.asarray(DATA.x), np.asarray(DATA.y))
    fit(balanced[0], source, out=tmp_path / "source", epochs=1)
    resumed = fit(balanced[0], source, out=tmp_path / "source", epochs=2, resume=True)
    assert_equal(resumed.ts, fit(balanced[0], source, epochs=2).ts)
    fit(balanced[0], out=tmp_path / "balanced", epochs=1)
    with pytest.raises(train.RunMismatchError, match="sampler"):  # the labels are constants of the program
        fit(balanced[1], out=tmp_path / "balanced", epochs=2, resume=True)


def test_large_evaluations_are_done_in_blocks():
    x = jax.random.normal(KEY, (9000, 3))
    data = Data(x, jnp.zeros(9000, jnp.int32), jnp.arange(9000.0))
    ts = PENALISED.init(KEY, DATA)
    log = jax.jit(PENALISED.evaluate)(ts, data)
    values, _, expected = penalised(ts.params, ts.state, data, train=False, key=KEY)
    np.testing.assert_allclose(log["loss"], metrics.weighted_mean(values, data.weights), rtol=1e-5)
    np.testing.assert_allclose(log["penalty"], expected["penalty"], rtol=1e-5)


def test_micro_batches_average_the_log():
    def objective(params, state, batch, *, train, key):
        return jnp.square(batch.x @ params["w"]).sum(1), state, {"mean": batch.x.mean()}

    net = nn.dense(2, bias=False)
    make = partial(train.Run, net, objective=objective, optimizer=optim.sgd(0.1), batch_size=BATCH)
    whole, parts = (fit(run, epochs=1) for run in (make(), make(micro_batches=2)))
    chex.assert_trees_all_close(whole.log, parts.log, rtol=1e-5, atol=1e-6)


def _returns(value):
    return lambda params, state, batch, *, train, key: value


LOSSES, STATE = jnp.ones(BATCH), {}
MISTAKES = {
    "loss and objective": ({"loss": losses.cross_entropy, "objective": PLAIN}, TypeError, "got both"),
    "neither": ({}, TypeError, "needs a loss or an objective=, got neither"),
    "no function": (
        {"objective": 3},
        TypeError,
        r"objective must be a function \(params, state, batch, \*, train, key\), got 3",
    ),
    "scalar": (
        {"objective": _returns((jnp.ones(()), (), {}))},
        ValueError,
        r"one number per example, \(4,\), got \(\)",
    ),
    "two values": ({"objective": _returns((LOSSES, ()))}, TypeError, r"must return \(losses, state, log\)"),
    "log of arrays": ({"objective": _returns((LOSSES, (), {"a": LOSSES}))}, TypeError, "'a' is .* of shape"),
    "log of text": ({"objective": _returns((LOSSES, (), {"a": "b"}))}, TypeError, "must log scalars, but 'a' is 'b'"),
    "no log": (
        {"objective": _returns((LOSSES, (), None))},
        TypeError,
        "must be a dict that maps names to scalars, got None",
    ),
    "reserved": (
        {"objective": _returns((LOSSES, (), {"loss": 1.0}))},
        ValueError,
        "logs 'loss', a name that fit uses",
    ),
    "twice": (
        {"objective": _returns((LOSSES, (), {"grad_norm": 1.0})), "step_metrics": (train.grad_norm,)},
        ValueError,
        "log 'grad_norm'; rename",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_objectives_are_named(name):
    arguments, kind, message = MISTAKES[name]
    with pytest.raises(kind, match=message):
        fit(train.Run(nn.dense(2), optimizer=optim.adam(RATE), batch_size=BATCH, **arguments))


WRONG_CALLS = {
    "epochs and steps": (lambda: fit(steps=3), TypeError, "got both"),
    "neither": (lambda: fit(epochs=None), TypeError, "needs epochs= or steps=, .* got neither"),
    "epochs without data": (
        lambda: train.fit(WITHOUT_DATA, epochs=1),
        ValueError,
        "this run has no data; pass its length as steps=",
    ),
    "micro-batches without data": (
        lambda: train.fit(replace(WITHOUT_DATA, micro_batches=2), steps=1, progress=False),
        ValueError,
        "splits a batch, but this run has no data",
    ),
    "no data": (lambda: train.fit(make_run(), steps=1), ValueError, "batch_size=4 needs data"),
    "start of another network": (
        lambda: fit(start={"w": jnp.ones(3)}),
        ValueError,
        "start: params must have the same structure as the initial ones; missing: .*; unexpected: w",
    ),
    "objective of three": (
        lambda: train.Run(NET, objective=lambda p, s, b: 0, optimizer=optim.sgd(0.1), batch_size=4),
        TypeError,
        r"objective must be a function \(params, state, batch, \*, train, key\), but <lambda> takes \(p, s, b\)",
    ),
    "objective without a log": (
        lambda: train.Run(
            NET, objective=lambda p, s, b, train, key: (b.x[:, 0], s), optimizer=optim.sgd(0.1), batch_size=4
        ).init(KEY, DATA),
        TypeError,
        r"must return \(losses, state, log\), got 2 values; return {} as the log",
    ),
    "update of two": (
        lambda: make_run(optimizer=optax.GradientTransformation(lambda p: (), lambda g, s: (g, s))).init(KEY, DATA),
        ValueError,
        r"an update rule is update\(gradients, state, parameters\) -> \(updates, state\)",
    ),
    "start of another shape": (
        lambda: fit(start=jax.tree.map(lambda a: a[..., :1], make_run().init(KEY, DATA).params)),
        ValueError,
        "with or without a leading axis",
    ),
    "start without params=": (
        lambda: fit(Descent(BATCH), start=jnp.ones(3)),
        TypeError,
        "needs a run whose init takes",
    ),
    "no run": (lambda: fit("run"), TypeError, "run must be a train.Run, or have the attributes"),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_calls_are_named(name):
    call, kind, message = WRONG_CALLS[name]
    with pytest.raises(kind, match=message):
        call()


def test_a_network_that_reads_its_input_needs_data_or_an_init():
    with pytest.raises(TypeError) as caught:
        train.fit(replace(WITHOUT_DATA, net=nn.mlp([4], 1)), steps=1)
    assert any("in a run without data, where x is ()" in note for note in caught.value.__notes__)


def test_a_metric_that_leaves_jax_is_named():
    def mean(prediction, target, weights):
        return float(prediction.mean())

    with pytest.raises(jax.errors.ConcretizationTypeError) as caught:
        fit(make_run(metrics=(mean,)), validation=HELD_OUT)
    assert any(note.startswith("in the metric mean, which JAX traces") for note in caught.value.__notes__)


def test_a_saved_run_is_a_start_with_its_state(tmp_path):
    first = fit(out=tmp_path)
    assert_equal(fit(start=train.load(tmp_path)).ts, fit(start=first.ts).ts)


@dataclass(frozen=True)
class Wrong(Descent):
    """A run whose step returns something else."""

    result: str = "loss"

    def step(self, ts, batch):
        new, log = super().step(ts, batch)
        results = {
            "loss": (new, {}),
            "state": (new.params, log),
            "dtype": (new._replace(params=new.params.astype(jnp.bfloat16)), log),
        }
        return results[self.result]


@pytest.mark.parametrize(
    ("result", "message"),
    [("loss", "must have an entry 'loss'"), ("state", r"must return \(TrainState, log\)"), ("dtype", "same structure")],
)
def test_wrong_steps_are_named(result, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fit(Wrong(BATCH, result=result), DATA, validation=None)


def test_members_of_an_own_step_are_single_runs():
    many = fit(Descent(BATCH), members=3, validation=None, key=KEYS)
    for i, key in enumerate(KEYS):
        alone = fit(Descent(BATCH), validation=None, key=key)
        assert_equal(jax.tree.map(lambda a, i=i: a[i], many.ts), alone.ts)


def batch_list(sizes, data=DATA):
    ends = np.cumsum(sizes)
    return [take(data, np.arange(end - size, end) % 20) for size, end in zip(sizes, ends, strict=True)]


@pytest.mark.parametrize("members", [None, 2])
def test_a_generator_of_batches_is_read_in_order(members):
    def in_order(key, step, n, batch_size):
        return (step * batch_size + jnp.arange(batch_size)) % n

    expected = fit(make_run(sampler=in_order), epochs=None, steps=7, members=members)
    for read in (iter, list):  # a generator, and an iterable that starts again
        sizes = [5, 3, 7, 1, 4] * (2 if read is iter else 1)
        examples = read(batch_list(sizes))
        result = fit(data=Loader(examples) if read is list else examples, epochs=None, steps=7, members=members)
        assert_equal(result.ts, expected.ts)
        np.testing.assert_array_equal(result.losses, expected.losses)


class Loader:
    """An iterable of batches, as other libraries have them."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def test_a_generator_may_end_early(tmp_path):
    with pytest.raises(ValueError, match="the generator ended after 8 examples") as error:
        fit(data=iter(batch_list([5, 3])), epochs=None, steps=3, out=tmp_path)
    assert "while" not in str(error.value)
    generator = iter(batch_list([5, 3]))
    for wrong, message in (
        ({"epochs": 1}, "has no epochs"),
        ({"epochs": None, "steps": 2, "out": tmp_path, "resume": True}, "resume= needs rows in any order"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(data=generator, **wrong)
    with pytest.raises(ValueError, match="can be read only once, so its steps cannot be repeated"):
        train.replay(make_run(), generator, steps=2)


def test_classes_are_drawn_equally_often():
    labels = np.array([0] * 18 + [1] * 2)
    sampler = data.class_balanced(labels)
    rows = jax.vmap(lambda step: sampler(KEY, step, 20, 50))(jnp.arange(100))
    shares = np.bincount(np.asarray(rows).ravel(), minlength=20) / 5000
    np.testing.assert_allclose(shares[:18], 0.5 / 18, atol=0.01)
    np.testing.assert_allclose(shares[18:], 0.25, atol=0.02)
    run = make_run(sampler=sampler)
    source = data.source(np.asarray(DATA.x), np.asarray(DATA.y))
    assert_equal(fit(run).ts, fit(run, source).ts)
    with pytest.raises(ValueError, match=r"got 20 labels, but the data are 7 rows"):
        fit(run, HELD_OUT)
    with pytest.raises(ValueError, match="the data are folds"):
        fit(run, folds=train.k_fold(KEY, 20, 4), validation=None)


TOKENS = np.random.default_rng(0).integers(0, 7, (20, 5))


@pytest.mark.filterwarnings("ignore:.*uint8 values")  # a source does not know the network
@pytest.mark.parametrize("source", [False, True], ids=["memory", "source"])
def test_tokens_and_masks_keep_their_dtypes(source):
    net = nn.serial(nn.embedding(7, 4), lambda x: x.mean(1), nn.dense(2))
    run = train.Run(net, losses.cross_entropy, optim.adam(RATE), batch_size=BATCH)
    y = np.asarray(DATA.y)
    small, wide = (
        data.source(TOKENS.astype(dtype), y) if source else (TOKENS.astype(dtype), y) for dtype in (np.uint8, np.int32)
    )
    held_out = (TOKENS.astype(np.uint8), y)
    assert_equal(fit(run, small, validation=held_out).ts, fit(run, wide, validation=held_out).ts)


def test_only_the_inputs_that_need_it_keep_their_dtypes():
    seen = []

    def apply(params, state, x, *, train, key=None):
        seen.append({name: leaf.dtype.name for name, leaf in x.items()})
        if x["tokens"].dtype != jnp.uint8 or x["mask"].dtype != jnp.bool_:
            raise TypeError("tokens must be integers, masks booleans")
        return jnp.where(x["mask"], x["image"].astype(jnp.float32) @ params, jnp.float32(0)), state

    net = Layer("mixed", lambda key, x: (jnp.zeros((3, 2)), ()), apply)
    run = train.Run(net, losses.cross_entropy, optim.adam(RATE), batch_size=BATCH)
    x = {"tokens": np.ones((20, 2), np.uint8), "mask": np.ones((20, 2), bool), "image": np.ones((20, 3), np.uint8)}
    fit(run, (x, np.asarray(DATA.y)), validation=None, epochs=1)
    assert seen[-1] == {"tokens": "uint8", "mask": "bool", "image": "float32"}


@pytest.mark.parametrize("run", [PENALISED, Descent(BATCH)], ids=["objective", "own step"])
def test_folds_and_sources_work_with_any_step(run):
    folds = train.k_fold(KEY, 20, 4)
    many = fit(run, folds=folds, validation=None)
    alone = fit(run, take(DATA, own_rows(folds.train, 1)), key=jax.random.split(KEY, 4)[1], validation=None)
    assert_close(jax.tree.map(lambda a: a[1], many.ts.params), alone.ts.params, rtol=1e-4)
    assert many.history[-1]["validation_loss"].shape == (4,)
    source = data.source(np.asarray(DATA.x), np.asarray(DATA.y))
    assert_close(fit(run, source).ts.params, fit(run).ts.params, rtol=1e-4)


def test_an_objective_that_turns_nan_is_replayed():
    def objective(params, state, batch, *, train, key):
        values, state, log = PLAIN(params, state, batch, train=train, key=key)
        return values + jnp.log(jnp.abs(batch.x[:, 0] - DATA.x[7, 0])), state, log

    run = train.Run(NET, objective=objective, optimizer=optim.adam(RATE), batch_size=BATCH)
    with pytest.warns(train.DivergedWarning):
        result = fit(run)
    replay = train.replay(run, DATA, epochs=3, key=KEY)
    assert replay.step == int(result.diverged)
    assert 7 in replay.rows
    assert replay.origin.primitive == "log"


def test_logs_are_shown_in_the_progress_bar(monkeypatch):
    shown = []
    monkeypatch.setattr(progress, "_can_show", lambda console: True)
    monkeypatch.setattr("rich.progress.Progress.update", lambda self, task, **fields: shown.append(fields["text"]))
    fit(PENALISED, progress=True, epochs=1)
    assert "  correct 3  grad_norm " in shown[-1]
    assert shown[-1].startswith("loss ")


@pytest.mark.parametrize(
    ("jupyter", "terminal", "widgets", "expected"),
    [(True, False, True, True), (True, False, False, False), (False, True, False, True), (False, False, True, False)],
)
def test_a_notebook_shows_the_bar_with_ipywidgets(monkeypatch, jupyter, terminal, widgets, expected):
    monkeypatch.setattr(progress, "find_spec", lambda name: object() if widgets and name == "ipywidgets" else None)
    console = SimpleNamespace(is_jupyter=jupyter, is_terminal=terminal)
    assert progress._can_show(console) is expected
