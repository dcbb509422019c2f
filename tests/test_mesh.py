"""Several devices have the numbers of one; see test_train_properties.py for bits. The tests have eight CPU devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import train_runs
from jax.sharding import AxisType
from train_runs import DATA, HELD_OUT, KEY, N, assert_close, assert_equal, mesh, stop_at, take

from nnjax import losses, nn, optim, train
from nnjax.train.engine.device_loop import MemberArgs, initial_states, train_chunk
from nnjax.train.engine.ensemble import Ensemble
from nnjax.train.engine.placement import replicate, shard_members

WEIGHTED = DATA._replace(weights=jnp.linspace(0.5, 2.0, N))


def make_run(batch_size=8):
    """Return a run whose batch devices can divide."""
    return train_runs.make_run(batch_size=batch_size)


RUN = make_run()


def fit(run=RUN, data=WEIGHTED, **settings):
    return train_runs.fit(run, data, **{"epochs": 2} | settings)


def compiled(ensemble, run):
    """Return the text of the program of a chunk on each device."""
    keys = shard_members(ensemble, jax.random.split(KEY, ensemble.members))
    data = replicate(ensemble, WEIGHTED)
    fs = initial_states(ensemble, keys, None, None, data, validated=False)
    until = shard_members(ensemble, np.zeros(ensemble.members, np.int32))
    chunk = jax.jit(train_chunk, static_argnums=0)
    return chunk.lower(ensemble, fs, MemberArgs(until=until), data, np.int32(0)).compile().as_text()


def test_eight_devices():
    assert jax.device_count() == 8


# Members -------------------------------------------------------------------------------------------------------------


def test_members_lie_on_their_devices():
    ensemble = Ensemble(RUN, 5, "map", mesh(members=4))
    keys, data = shard_members(ensemble, jax.random.split(KEY, 5)), replicate(ensemble, WEIGHTED)
    fs = initial_states(ensemble, keys, None, None, data, validated=False)
    w = fs.train.params[0]["w"]
    assert [shard.data.shape for shard in w.addressable_shards] == [(2, 3, 4)] * 4
    assert fs.stopped.tolist() == [False] * 5 + [True] * 3
    args = MemberArgs(until=shard_members(ensemble, np.ones(5, np.int32)))
    fs, _, _ = train_chunk(ensemble, jax.tree.map(jnp.copy, fs), args, data, np.int32(1))
    assert len(fs.train.params[0]["w"].sharding.device_set) == 4
    assert fs.train.step.tolist() == [1] * 5 + [0] * 3


def test_members_vmapped_on_each_device_agree_to_rounding():
    one, spread = (fit(members=5, strategy="vmap", epochs=0.4, mesh=m) for m in (None, mesh(members=4)))
    assert_close(spread.ts, one.ts)
    np.testing.assert_allclose(spread.losses, one.losses, rtol=1e-5)


def test_members_do_not_exchange(optimizing_compiler):
    text = compiled(Ensemble(RUN, 4, "map", mesh(members=4)), RUN)
    assert not any(name in text for name in ("all-reduce", "all-gather", "all-to-all", "collective-permute"))


def test_folds_and_sweeps_are_spread(optimizing_compiler):
    folds = train.leave_one_out(3)
    linear = train.Run(nn.dense(2), losses.cross_entropy, optim.momentum(0.1), batch_size=None)
    part = take(WEIGHTED, np.arange(2, 5))
    one, spread = (fit(linear, part, folds=folds, validation=None, mesh=m) for m in (None, mesh(members=2)))
    assert_equal((spread.ts, spread.best), (one.ts, one.best))

    def make(hyper):
        return train.Run(nn.dense(2), losses.cross_entropy, optim.momentum(hyper["rate"]), batch_size=None)

    one, spread = (
        train.sweep(make, {"rate": [0.1, 0.2, 0.3]}, WEIGHTED, epochs=3, validation=HELD_OUT, progress=False, mesh=m)
        for m in (None, mesh(members=2))
    )
    assert_equal(spread.result.ts, one.result.ts)
    assert spread.table == one.table


# The batch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [8, 6, None], ids=str)
def test_a_batch_spread_is_the_batch_of_one_device_to_rounding(batch_size):
    """Parameters, moments, statistics; of a batch that the devices divide, or not, or of all rows."""
    run = make_run(batch_size)
    for steps, rtol in ((1, 2e-6), (3, 1e-4)):
        epochs = steps * (batch_size or N) / N
        one, spread = (fit(run, epochs=epochs, mesh=m) for m in (None, mesh(batch=4)))
        assert one.losses.shape == spread.losses.shape == (steps,)
        np.testing.assert_allclose(spread.losses, one.losses, rtol=rtol)
        assert_close(spread.ts, one.ts, rtol)
        np.testing.assert_allclose(spread.best.score, one.best.score, rtol=rtol)


@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_members_and_batches_spread_at_the_same_time(strategy):
    one, spread = (fit(members=3, epochs=0.4, strategy=strategy, mesh=m) for m in (None, mesh(members=2, batch=4)))
    np.testing.assert_allclose(spread.losses, one.losses, rtol=1e-5)
    assert_close(spread.ts, one.ts)


@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_a_batch_spread_for_members_on_all_devices(strategy):
    run = train.Run(nn.dense(2), losses.cross_entropy, optim.adam(0.02), batch_size=None)
    one, spread = (fit(run, members=2, epochs=1, strategy=strategy, mesh=m) for m in (None, mesh(batch=2)))
    assert_close(spread.ts, one.ts)


def test_the_batch_is_spread():
    """Each device multiplies its two rows of eight, and gradients and statistics are summed over devices."""
    run = train.Run(
        nn.serial(nn.dense(5), nn.batch_norm(), nn.dense(2)), losses.cross_entropy, optim.sgd(0.1), batch_size=8
    )
    one, spread = (compiled(Ensemble(run, mesh=m), run) for m in (None, mesh(batch=4)))
    assert "all-reduce" not in one
    assert "all-reduce" in spread
    assert "f32[8,5]" in one
    assert "f32[2,5]" in spread
    assert "f32[8,5]" not in spread


# Meshes of any kind, and resuming ------------------------------------------------------------------------------------


def test_explicit_axes_are_taken_as_auto():
    """They are the default of `jax.make_mesh`."""
    explicit = mesh(batch=4)
    auto = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    assert explicit.axis_types == (AxisType.Explicit,)
    assert Ensemble(RUN, mesh=explicit) == Ensemble(RUN, mesh=auto)


def test_resumed_on_other_devices(tmp_path, optimizing_compiler):
    """Members do not communicate. Callbacks see no padding members."""
    shapes = []

    def stop(ts, record):
        shapes.append((ts.step.shape, record["loss"].shape))
        return True

    whole = fit(members=5, mesh=mesh(members=4))
    stopped = fit(members=5, mesh=mesh(members=4), out=tmp_path, callback_every=2, callbacks=[stop])
    assert stopped.ts.step.tolist() == [2] * 5
    assert shapes == [((5,), (5,))]
    resumed = fit(members=5, out=tmp_path, resume=True)
    assert_equal((resumed.ts, resumed.best), (whole.ts, whole.best))
    np.testing.assert_array_equal(resumed.losses, whole.losses)


def test_a_full_batch_spread_is_resumed(tmp_path):
    run, settings = make_run(None), {"mesh": mesh(batch=4), "epochs": 5}
    whole = fit(run, **settings)
    fit(run, **settings, out=tmp_path, callback_every=1, callbacks=[stop_at(2)])
    assert_equal(fit(run, **settings, out=tmp_path, resume=True).ts, whole.ts)


MISTAKES = {
    "axis": ({"members": 2, "mesh": lambda: mesh(data=2)}, ValueError,
             r"axes of mesh must be among 'members' and 'batch', got \('data',\)"),
    "one of two axes": ({"members": 2, "mesh": lambda: mesh(members=2, model=2)}, ValueError,
                        "axes of mesh must be among"),
    "a single run": ({"mesh": lambda: mesh(members=2)}, ValueError, r"a mesh with an axis 'members' needs members=…"),
    "devices": ({"members": 2, "mesh": jax.devices}, TypeError, r"such as jax\.make_mesh\(…\), got \["),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    settings, kind, message = MISTAKES[name]
    with pytest.raises(kind, match=message):
        fit(**settings | {"mesh": settings["mesh"]()})


# Any objective -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [{"members": 4}, {"batch": 2}, {"members": 2, "batch": 2}])
def test_objectives_run_over_devices(axes):
    plain = train.objective_of(train_runs.NET, losses.cross_entropy)

    def objective(params, state, batch, *, train, key):
        values, state, log = plain(params, state, batch, train=train, key=key)
        return values, state, log | {"largest": values.max()}

    run = train.Run(train_runs.NET, objective=objective, optimizer=optim.adam(0.05), batch_size=8)
    one, spread = fit(run, members=4), fit(run, members=4, mesh=mesh(**axes))
    np.testing.assert_allclose(spread.log["largest"], one.log["largest"], rtol=1e-3)
    np.testing.assert_allclose(spread.losses, one.losses, rtol=1e-3)
