"""A planted NaN or infinity is found at its step, member, layer and rows, from states with the bits of the run."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from train_runs import assert_equal

from nnjax import data as nn_data
from nnjax import losses, nn, optim, train
from nnjax.train.engine import host_loop
from nnjax.train.engine.options import FitOptions
from nnjax.train.fit import fit_job
from nnjax.train.replay import replay_job
from nnjax.types import Data

N, BATCH, ROW, EPOCHS = 20, 4, 7, 4
X = jax.random.uniform(jax.random.key(1), (N, 3), minval=0.5)
Y = jnp.zeros((N, 3))
KEY = jax.random.key(5)
SPIKE = 6  # the step at which a rate is far too large
MEMBERS = [(None, "map"), (2, "map"), (2, "vmap")]
pytestmark = pytest.mark.filterwarnings("ignore:fit. the loss of step:RuntimeWarning")


def same():
    """A dense layer (3,) -> (3,) that is the identity at first."""
    return nn.dense(3, w_init=lambda key, shape, dtype: jnp.eye(*shape, dtype=dtype))


def square(x):
    return x * x


def negative_log(prediction, target):
    return -jnp.log(prediction).sum(-1)


def spiking(rate):
    return optim.sgd(lambda count: jnp.where(count == SPIKE, rate, 1e-3))


def dividing(at):
    """Descent whose step number `at` divides by zero."""

    def update(grads, count, params=None, **_):
        return jax.tree.map(lambda g: -1e-3 * g / (at - count).astype(g.dtype), grads), count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def with_row(value, x=X):
    return Data(x.at[ROW].set(value), Y)


STILL = optax.sgd(0.0)
HEALTHY = train.Run(nn.mlp([4], 3), losses.squared_error, optim.adam(1e-2), batch_size=BATCH)
DEEP = nn.serial(same(), nn.repeat(3, nn.serial(same(), square)), same())
PLANTED = {  # run, data, the step or "row" for the first that has the row, and what is found
    "overflow in a layer": (
        train.Run(nn.serial(same(), square, same()), losses.squared_error, STILL, batch_size=BATCH),
        with_row(1e30),
        ("row", ("1_square",), "forward", "mul"),
    ),
    "log of 0 in the loss": (
        train.Run(same(), negative_log, STILL, batch_size=BATCH),
        with_row(0.0),
        ("row", ("loss",), "loss", "log"),
    ),
    "inside a repeat": (
        train.Run(DEEP, losses.squared_error, STILL, batch_size=BATCH),
        with_row(1e10),
        ("row", ("1_repeat(3, serial)",), "forward", "mul"),
    ),
    "division of the optimizer": (
        train.Run(nn.mlp([4], 3), losses.squared_error, dividing(SPIKE), batch_size=BATCH),
        Data(X, Y),
        (SPIKE, ("update",), "update", "div"),
    ),
    "overflow after a large step": (
        train.Run(nn.serial(same(), square, same()), losses.squared_error, spiking(1e22), batch_size=BATCH),
        Data(X, Y),
        (SPIKE + 1, ("1_square",), "forward", "mul"),
    ),
}


def settings(members, strategy):
    return {"epochs": EPOCHS, "key": KEY, "members": members, "strategy": strategy}


def steps_of_row(run, members):
    """The first step of each member whose batch holds the row."""
    steps = []
    for key in [KEY] if members is None else jax.random.split(KEY, members):
        rows = run.rows(key, jnp.zeros((), jnp.int32), N, N * EPOCHS // BATCH)
        steps.append(int(np.flatnonzero((np.asarray(rows) == ROW).any(1))[0]))
    return steps


def finding(replay):
    found = replay.origin
    return found.scope[:1], found.phase, found.primitive


def watch_chunks(monkeypatch):
    """Return a list that grows by (members, first step) with each chunk of steps."""
    starts, train_chunk = [], host_loop.train_chunk

    def watched(ensemble, fs, *rest):
        starts.append((ensemble.members, int(fs.train.step.max())))
        return train_chunk(ensemble, fs, *rest)

    monkeypatch.setattr(host_loop, "train_chunk", watched)
    return starts


@pytest.mark.parametrize(("members", "strategy"), MEMBERS, ids=["single run", "map", "vmap"])
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_value_is_found(name, members, strategy):
    run, examples, (where, scope, phase, primitive) = PLANTED[name]
    steps = steps_of_row(run, members) if where == "row" else [where] * (members or 1)
    first = train.replay(run, examples, **settings(members, strategy))
    assert first.step == min(steps)
    assert first.member == (None if members is None else steps.index(min(steps)))
    assert finding(first) == (scope, phase, primitive)
    if where == "row":
        assert first.rows[list(first.origin.rows)].tolist() == [ROW]
        assert str(first).endswith(f"; rows {ROW} of the data")
    if name == "inside a repeat":
        assert [(loop.kind, loop.iteration) for loop in first.origin.loops] == [("block", 1)]
    who = "" if members is None else f", member {first.member}"
    assert str(first).startswith(f"step {first.step}{who}: ")


@pytest.mark.parametrize(("members", "strategy"), MEMBERS, ids=["single run", "map", "vmap"])
def test_from_a_folder_and_of_each_member_it_is_the_same(members, strategy, tmp_path, optimizing_compiler):
    run, examples, _ = PLANTED["log of 0 in the loss"]
    again = partial(train.replay, run, examples, **settings(members, strategy))
    steps, first = steps_of_row(run, members), again()
    trained = train.fit(
        run, examples, **settings(members, strategy), progress=False, out=tmp_path, save_every=0, chunk_steps=1
    )
    assert np.reshape(trained.diverged, -1).tolist() == steps
    saved = again(out=tmp_path)
    assert (saved.step, saved.member, saved.origin) == (first.step, first.member, first.origin)
    assert_equal(saved.ts, first.ts)
    for member in range(members or 0):
        one, saved = again(member=member), again(member=member, out=tmp_path)
        assert (one.step, one.member) == (saved.step, saved.member) == (steps[member], member)
        assert_equal(saved.ts, one.ts)
        assert one.origin == saved.origin
        assert one.rows[list(one.origin.rows)].tolist() == [ROW]


@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_groups_are_replayed_as_they_were_trained_from_their_own_checkpoints(
    strategy, tmp_path, monkeypatch, optimizing_compiler
):
    run, examples, _ = PLANTED["log of 0 in the loss"]
    given, steps = settings(3, strategy), steps_of_row(run, 3)
    assert len(set(steps)) == 3
    trained = train.fit(run, examples, **given, group=2, progress=False, out=tmp_path, save_every=0, chunk_steps=1)
    assert trained.diverged.tolist() == steps
    starts = watch_chunks(monkeypatch)
    again = partial(train.replay, run, examples, **given, group=2)
    for out in (None, tmp_path):
        first = again(out=out)
        assert (first.step, first.member) == (min(steps), steps.index(min(steps)))
    for member, step in enumerate(steps):
        starts.clear()
        one = again(member=member, out=tmp_path)
        assert (one.step, one.member) == (step, member)
        assert one.rows[list(one.origin.rows)].tolist() == [ROW]
        assert {members for members, _ in starts} == {1 if strategy == "map" else 2 if member < 2 else 1}
        assert starts[0][1] > 0 or step == 0
        assert_equal(one.ts, again(member=member).ts)
        late = again(step=step, out=tmp_path)
        assert (late.step, late.member) == (step, member)
    with pytest.raises(ValueError, match=rf"step 19 was not taken; the run ended after {max(steps) + 1} steps"):
        again(step=19)
    with pytest.raises(ValueError, match="fit: group must be ≥ 1, got 0"):
        train.replay(run, examples, **given, group=0)


def test_over_devices():
    run, examples, (_, scope, phase, primitive) = PLANTED["inside a repeat"]
    steps = steps_of_row(run, 3)
    mesh = jax.make_mesh((2,), ("members",), axis_types=(jax.sharding.AxisType.Auto,))
    for strategy in ("map", "vmap"):
        for member in (None, 2):
            one = train.replay(run, examples, **settings(3, strategy), mesh=mesh, member=member)
            assert finding(one) == (scope, phase, primitive)
            assert (one.step, one.member) == (
                (min(steps), steps.index(min(steps))) if member is None else (steps[2], 2)
            )


def test_a_single_run_is_its_own_first_member(tmp_path):
    run, examples, _ = PLANTED["log of 0 in the loss"]
    given = settings(None, "map")
    train.fit(run, examples, **given, progress=False, out=tmp_path, save_every=0, chunk_steps=1)
    one, other = (train.replay(run, examples, **given, out=tmp_path, member=member) for member in (0, None))
    assert str(one) == str(other)


def test_rows_may_have_another_name():
    run, examples, _ = PLANTED["log of 0 in the loss"]
    one = train.replay(run, examples, **settings(None, "map"))
    assert one.describe("a.csv") == str(one).replace(" of the data", " of a.csv")


def test_a_nan_in_the_data_is_named():
    run = train.Run(nn.mlp([4], 3, norm="batch"), losses.squared_error, optim.adam(1e-3), batch_size=BATCH)
    options = FitOptions(epochs=EPOCHS)
    job = fit_job(run, Data(X, Y), options, key=KEY, members=2, strategy="map", mesh=None, folds=None)
    job = job._replace(data=with_row(jnp.nan))  # which `fit` itself would refuse
    found = replay_job(job, options, member=1)
    assert found.step == steps_of_row(run, 2)[1]
    assert (found.origin.kind, found.origin.primitive) == ("argument", "batch.x")
    assert found.rows[list(found.origin.rows)].tolist() == [ROW]


@pytest.mark.parametrize(("members", "strategy"), MEMBERS, ids=["single run", "map", "vmap"])
def test_the_state_before_a_step_has_the_bits_of_the_run(members, strategy, tmp_path, optimizing_compiler):
    run = train.Run(nn.mlp([4], 3, norm="batch", dropout=0.2), losses.squared_error, optim.adam(1e-2), batch_size=BATCH)
    fit = partial(train.fit, run, (X, Y), key=KEY, members=members, strategy=strategy, progress=False)
    whole = fit(epochs=EPOCHS, out=tmp_path, save_every=0, chunk_steps=5)
    for step, folders in ((0, [None]), (13, [None, tmp_path])):
        expected = fit(epochs=step * BATCH / N).ts
        for member in [None] if members is None else [members - 1]:
            ts = expected if member is None else jax.tree.map(lambda a, m=member: a[m], expected)
            for out in folders:
                again = train.replay(run, (X, Y), **settings(members, strategy), step=step, member=member, out=out)
                assert_equal(again.ts, ts)
                assert (again.step, again.member, again.origin) == (step, member, None)
                np.testing.assert_array_equal(again.rows, run.rows(ts.key, ts.step, N, 1)[0])
                np.testing.assert_array_equal(again.batch.x, X[again.rows])
        _, log = jax.jit(run.step)(again.ts, again.batch)
        np.testing.assert_allclose(log["loss"], np.atleast_2d(whole.losses)[-1, step], rtol=1e-4)


@pytest.mark.parametrize("validation", [None, (X, Y)], ids=["plain", "validated"])
def test_it_starts_from_the_last_checkpoint_before_the_step(validation, tmp_path, monkeypatch):
    run = HEALTHY
    fit = partial(train.fit, run, (X, Y), validation=validation, key=KEY, progress=False, out=tmp_path, resume=True)
    for step in (5, 10, 15):
        fit(epochs=step * BATCH / N)
    starts = watch_chunks(monkeypatch)
    for step, start in ((4, 0), (6, 5), (12, 10), (19, 15)):
        starts.clear()
        train.replay(run, (X, Y), **settings(None, "map"), step=step, out=tmp_path)
        assert starts[0] == (1, start)
    starts.clear()
    train.replay(run, (X, Y), **settings(None, "map"), step=5, out=tmp_path)
    assert not starts
    newest = tmp_path / "step-000000000015.safetensors"
    newest.write_bytes(newest.read_bytes()[:-5])
    train.replay(run, (X, Y), **settings(None, "map"), step=19, out=tmp_path)
    assert starts[0] == (1, 10)


@pytest.mark.parametrize(("members", "strategy"), MEMBERS, ids=["single run", "map", "vmap"])
def test_a_healthy_run_has_none(members, strategy):
    run = HEALTHY
    assert train.replay(run, (X, Y), **settings(members, strategy)) is None
    one = train.replay(run, (X, Y), **settings(members, strategy), step=3)
    assert str(one) == ("step 3: everything is finite" if members is None else "step 3, member 0: everything is finite")


def test_infinities_in_the_initial_state_are_ignored():
    def update(grads, lowest, params=None, **_):
        now = jnp.minimum(lowest["now"], optax.tree.norm(grads))
        return jax.tree.map(lambda g: -1e-3 * g, grads), {"now": now, "ever": lowest["ever"]}

    begin = {"now": jnp.full((), jnp.inf), "ever": jnp.full((), jnp.inf)}
    run = train.Run(
        nn.mlp([4], 3), losses.squared_error, optax.GradientTransformation(lambda params: begin, update), batch_size=4
    )
    for members, strategy in MEMBERS:
        assert train.replay(run, (X, Y), **settings(members, strategy)) is None


def test_a_state_that_is_not_finite_before_the_loss_is_found_at_its_step():
    """The optimizer's NaN shows in the loss one step later."""
    run, examples, _ = PLANTED["division of the optimizer"]
    assert train.fit(run, examples, **settings(None, "map"), progress=False).diverged == SPIKE + 1
    assert train.replay(run, examples, **settings(None, "map")).step == SPIKE


def test_the_member_asked_for_and_not_the_first():
    """With a step and no member, the first member that has something to tell."""
    run, examples, _ = PLANTED["overflow in a layer"]
    steps = steps_of_row(run, 2)
    late = int(np.argmax(steps))
    assert steps[late] > min(steps)
    for strategy in ("map", "vmap"):
        one = train.replay(run, examples, **settings(2, strategy), step=steps[late])
        assert (one.step, one.member) == (steps[late], late)


def test_the_warning_of_a_fit_says_where_to_look():
    run, examples, _ = PLANTED["overflow in a layer"]
    with pytest.warns(
        RuntimeWarning, match=r"the loss of step \d+ is (inf|nan).*train\.replay\(…\) finds where it arose"
    ):
        train.fit(run, examples, **settings(None, "map"), progress=False)


def test_folds():
    """Each member on its own rows, and no step after a member's last."""
    folds = train.k_fold(jax.random.key(0), N, 3)  # 13 or 14 rows to train on, of 13 or 14 steps
    sizes = folds.train.sizes.tolist()
    run = train.Run(nn.mlp([4], 3), losses.squared_error, dividing(13), batch_size=BATCH)
    found = train.replay(run, (X, Y), epochs=EPOCHS, key=KEY, folds=folds)
    assert (found.step, found.member) == (13, sizes.index(14))
    assert set(found.rows.tolist()) <= set(folds.train.table[found.member].tolist())
    with pytest.raises(ValueError, match="step 13 was not taken; the run ended after 13 steps"):
        train.replay(run, (X, Y), epochs=EPOCHS, key=KEY, folds=folds, step=13, member=sizes.index(13))

    trained = train.fit(run, (X, Y), epochs=EPOCHS, key=KEY, folds=folds, progress=False)
    short = sizes.index(13)
    before = train.replay(run, (X, Y), epochs=EPOCHS, key=KEY, folds=folds, step=12, member=short)
    after, _ = jax.jit(run.step)(before.ts, before.batch)
    for one, of_all in zip(jax.tree.leaves(after.params), jax.tree.leaves(trained.ts.params), strict=True):
        np.testing.assert_allclose(one, of_all[short], rtol=1e-5)


def test_a_source(optimizing_compiler):
    run, examples, (_, scope, phase, primitive) = PLANTED["overflow in a layer"]
    source = nn_data.source(np.asarray(examples.x), np.asarray(examples.y))
    for members, strategy in MEMBERS:
        one = train.replay(run, source, **settings(members, strategy))
        other = train.replay(run, examples, **settings(members, strategy))
        assert finding(one) == (scope, phase, primitive)
        assert (one.step, one.member, one.origin) == (other.step, other.member, other.origin)
        assert_equal(one.ts, other.ts)


def test_full_batches():
    run = train.Run(nn.mlp([4], 3), losses.squared_error, dividing(3), batch_size=None)
    one = train.replay(run, (X, Y), epochs=9)
    assert (one.step, finding(one)) == (3, (("update",), "update", "div"))
    assert one.rows.tolist() == list(range(N))


# Mistakes


def test_mistakes_are_named(tmp_path):
    run, examples, _ = PLANTED["overflow in a layer"]
    again = partial(train.replay, run, examples, epochs=EPOCHS, key=KEY)
    with pytest.raises(ValueError, match=r"member must be in 0 … 1, got 2"):
        again(members=2, member=2)
    with pytest.raises(ValueError, match=r"step must be in 0 … 19, the steps of the run, got 20"):
        again(step=20)
    first = again().step
    with pytest.raises(ValueError, match=rf"step 19 was not taken; the run ended after {first + 1} steps"):
        again(step=19)


def test_another_run_in_the_folder_is_refused(tmp_path):
    run = HEALTHY
    train.fit(run, (X, Y), epochs=1, key=KEY, progress=False, out=tmp_path)
    with pytest.raises(ValueError, match=r"replay: .*000005.safetensors is from a different run:\n +saved +now\n +key"):
        train.replay(run, (X, Y), epochs=2, out=tmp_path)
    wider = train.Run(nn.mlp([5], 3), losses.squared_error, optim.adam(1e-2), batch_size=BATCH)
    with pytest.raises(ValueError, match=r"is from a different run:\n +saved +now\n +step"):
        train.replay(wider, (X, Y), epochs=2, key=KEY, out=tmp_path)
