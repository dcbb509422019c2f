"""GPUs and TPUs, as far as they can be tested without one: everything lowers, with loops only where they should be.

That the gradient of every layer lowers is tested in `test_layers.py`.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LOSSES, OPTIMIZERS, over
from train_runs import BATCH, DATA, KEY, assert_equal, fit, make_run, stop_at

from nnjax import data, losses, nn, optim, train
from nnjax.train.engine import device_loop
from nnjax.train.engine import ensemble as engine
from nnjax.train.engine.device_loop import MemberArgs, initial_states, train_chunk, validate
from nnjax.train.engine.search import population

PLATFORMS = ["cuda", "tpu"]
X = jnp.ones((4, 6))


def lowered(function, *args, platform="cuda"):
    return jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("strategy", engine.STRATEGIES)
def test_the_training_program_lowers(strategy):
    ensemble = engine.Ensemble(make_run(), 2, strategy, block=16)
    fs = jax.eval_shape(lambda k: initial_states(ensemble, k, None, None, DATA, validated=True), jax.random.split(KEY))
    args = MemberArgs(until=jnp.zeros(2, jnp.int32))
    traced = jax.jit(train_chunk, static_argnums=0).trace(ensemble, fs, args, DATA, np.int32(0))
    for platform in PLATFORMS:
        assert "stablehlo.while" in traced.lower(lowering_platforms=(platform,)).as_text()


def lower_everywhere(function, *args):
    traced = jax.jit(function).trace(*args)
    for platform in PLATFORMS:
        traced.lower(lowering_platforms=(platform,))


@pytest.mark.parametrize("strategy", engine.STRATEGIES)
def test_the_other_programs_of_a_run_and_of_a_search_lower(strategy):
    ensemble, args = engine.Ensemble(make_run(), 2, strategy, block=16), MemberArgs(until=jnp.zeros(2, jnp.int32))
    keys, flags, index = jax.random.split(KEY), jnp.zeros(2, bool), jnp.zeros(2, jnp.int32)

    def states(keys):
        return initial_states(ensemble, keys, None, None, DATA, validated=True)

    fs = jax.eval_shape(states, keys)
    networks = jax.eval_shape(lambda fs: population.networks_of(ensemble, fs, None), fs)
    lower_everywhere(states, keys)
    lower_everywhere(lambda fs: validate(ensemble, fs, args, DATA, np.int32(2)), fs)
    lower_everywhere(lambda fs: population.score_members(ensemble, fs, args, DATA, flags), fs)
    lower_everywhere(lambda fs, n: population.keep_networks(ensemble, n, fs, None, index), fs, networks)
    unvalidated = jax.eval_shape(lambda k: initial_states(ensemble, k, None, None, DATA, validated=False), keys)
    lower_everywhere(lambda fs: population.move_members(ensemble, fs, index, flags, keys, None, DATA), unvalidated)


@over(OPTIMIZERS)
def test_optimizers_lower(case):
    optimizer, params = case.ours(1e-2, **case.hyper), {"w": jnp.ones((4, 3)), "b": jnp.zeros(3)}
    lower_everywhere(optimizer.update, params, optimizer.init(params), params)


@over(LOSSES)
def test_losses_lower(case):
    target = case.target(np.random.default_rng(0))
    target = jnp.asarray(target, jnp.int32 if target.dtype.kind == "i" else jnp.float32)
    lower_everywhere(jax.grad(lambda prediction: case.loss(prediction, target).mean()), jnp.ones(case.shape))


def test_the_order_of_the_data_is_one_kernel_on_accelerators():
    def rows(step):
        return data.batch_indices(KEY, step, 60_000, 128)

    assert "stablehlo.while" in lowered(rows, jnp.int32(3), platform="cpu")
    for platform in PLATFORMS:
        assert "stablehlo.while" not in lowered(rows, jnp.int32(3), platform=platform)


def test_the_transposed_layout_is_for_cpus():
    layer = nn.dense(3, features_first=True)
    params, state = layer.init(KEY, X)

    def apply(x):
        return layer.apply(params, state, x, train=False)[0]

    assert "optimization_barrier" in lowered(apply, X, platform="cpu")
    assert "optimization_barrier" not in lowered(apply, X)


@pytest.mark.parametrize(
    ("n", "unroll", "platform", "loop"),
    [
        (5, None, "cpu", True),
        (20, None, "cuda", True),
        (5, None, "cuda", False),
        (5, 1, "cuda", True),
        (5, 5, "cpu", False),
    ],
)
def test_copies_are_unrolled_in_groups(n, unroll, platform, loop):
    layer = nn.repeat(n, nn.dense(6), unroll=unroll)
    params, state = jax.eval_shape(layer.init, KEY, X)

    def apply(params, x):
        return layer.apply(params, state, x, train=False)[0]

    assert ("stablehlo.while" in lowered(apply, params, X, platform=platform)) == loop


@pytest.mark.parametrize("unroll", [2, 3, 9])
def test_unrolled_copies_compute_the_same(unroll):
    one, grouped = nn.repeat(5, nn.dense(6)), nn.repeat(5, nn.dense(6), unroll=unroll)
    params, state = one.init(KEY, X)
    y, _ = one.apply(params, state, X, train=False)
    np.testing.assert_allclose(grouped.apply(params, state, X, train=False)[0], y, rtol=1e-5)


@pytest.fixture
def in_blocks(monkeypatch):
    """Take steps in blocks, as on accelerators."""
    monkeypatch.setattr(engine, "is_cpu", lambda mesh: False)
    monkeypatch.setattr(engine, "ACCELERATOR_BLOCK", 3)


@pytest.mark.parametrize("settings", [{}, {"members": 2}, {"members": 2, "strategy": "map"}, {"patience": 1}])
def test_blocks_of_steps_do_not_depend_on_chunks(in_blocks, settings, tmp_path):
    settings = {"strategy": "vmap"} | settings
    whole = fit(epochs=4, **settings)
    for chunk_steps in (1, 4):
        parts = fit(epochs=4, chunk_steps=chunk_steps, **settings)
        assert_equal(whole.ts, parts.ts)
        assert_equal(whole.log, parts.log)
    fit(epochs=4, out=tmp_path, callbacks=[stop_at(8)], callback_every=4, **settings)
    resumed = fit(epochs=4, out=tmp_path, resume=True, **settings)
    assert_equal(whole.ts, resumed.ts)


def test_blocks_take_the_steps_of_single_checks(monkeypatch):
    single = fit(strategy="map", members=2)
    monkeypatch.setattr(engine, "is_cpu", lambda mesh: False)
    blocks = fit(strategy="map", members=2)
    np.testing.assert_allclose(single.losses, blocks.losses, rtol=1e-3)
    np.testing.assert_allclose(single.history[-1]["validation_loss"], blocks.history[-1]["validation_loss"], rtol=1e-3)


def test_blocks_end_where_the_drawn_rows_end(monkeypatch):
    """Rows are drawn for five steps at a time, which blocks of four do not divide."""
    one_chunk = {"epochs": 4, "validation": None, "chunk_steps": 20}
    single = fit(**one_chunk)
    monkeypatch.setattr(engine, "is_cpu", lambda mesh: False)
    monkeypatch.setattr(engine, "ACCELERATOR_BLOCK", 4)
    monkeypatch.setattr(device_loop, "ROWS", 5 * BATCH)
    blocks = fit(strategy="map", **one_chunk)
    np.testing.assert_allclose(single.losses, blocks.losses, rtol=1e-3)


def test_a_run_that_diverges_in_a_block_takes_no_further_step(in_blocks):
    run = train.Run(nn.dense(2), losses.cross_entropy, optim.sgd(1e38), batch_size=BATCH)
    with pytest.warns(train.DivergedWarning):
        result = fit(run, strategy="map")
    assert int(result.ts.step) == int(result.diverged) + 1 == len(result.losses)


def test_the_strategy_goes_by_the_platform(monkeypatch):
    monkeypatch.setattr(engine, "is_cpu", lambda mesh: True)
    assert engine.Ensemble(make_run(), 2).strategy == "map"
    monkeypatch.setattr(engine, "is_cpu", lambda mesh: False)
    assert engine.Ensemble(make_run(), 2).strategy == "vmap"
    assert engine.Ensemble(make_run(), 2, "map").strategy == "map"
    assert replace(engine.Ensemble(make_run(), 2), members=1).strategy == "vmap"
