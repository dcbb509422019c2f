"""What holds for every kind of run: the host changes no bit, a member is a single run, nothing compiles twice."""

import logging
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import promoting
from train_runs import (
    DATA,
    KEY,
    KEYS,
    SWEPT,
    N,
    X,
    Y,
    assert_equal,
    assert_same_result,
    assert_same_training,
    fit,
    make_run,
    mesh,
    own_rows,
    sweep,
    take,
)

from nnjax import data, losses, nn, optim, train
from nnjax.train.engine import host_loop, prefetch
from nnjax.train.engine.ensemble import index_tree

pytestmark = pytest.mark.optimized

LARGE_BATCH, FULL_BATCH = make_run(batch_size=8), make_run(batch_size=None)
SOURCE = data.source(np.asarray(X), np.asarray(Y))
WEIGHTED = DATA._replace(weights=jnp.linspace(0.0, 2.0, N))
FOLDS = train.k_fold(jax.random.key(0), N, 3, stratify=Y)  # 13 or 14 rows to train on
CONV = nn.serial(nn.reshape((3, 1)), nn.conv(2, 3), jax.nn.relu, nn.max_pool(2), nn.flatten(), nn.dense(2))
NOISY = optax.chain(promoting(optax.add_noise)(0.01, 0.5, jax.random.key(9)), optim.momentum(0.1))
DRAWS = train.Run(CONV, losses.cross_entropy, NOISY, batch_size=None, micro_batches=2)


def fit_members(*arguments, key=KEY, **settings):
    return fit(*arguments, key=jax.random.split(key, 3), **settings)


def fit_on_members(**settings):
    """Over two devices, in groups of two members, and of one member with a padding member."""
    return fit_members(mesh=mesh(members=2), group=2, **{"epochs": 9, "patience": 2} | settings)


def fit_on_batches(**settings):
    return fit(LARGE_BATCH, mesh=mesh(batch=4), **{"epochs": 5} | settings)


def fit_sweep(hyper=SWEPT, chunk_steps=None, callback_every=None, **settings):
    """Callbacks of a sweep run after each epoch, and its chunks cannot be chosen."""
    return sweep(hyper=hyper, **{"epochs": 3} | settings).result


KINDS = {
    "single run": fit,
    "full batch": partial(fit, FULL_BATCH, epochs=9),
    "every second epoch validated": partial(fit, validate_every=2, epochs=5),
    "source": partial(fit, data=SOURCE),
    "map": fit_members,
    "map, an optimizer that draws": partial(fit_members, DRAWS, WEIGHTED, epochs=9),
    "map, early stopping": partial(fit_members, epochs=9, patience=2),
    "map in groups": partial(fit_members, group=2, epochs=9, patience=2),
    "map of a source in groups": partial(fit_members, data=SOURCE, group=2),
    "map over devices": fit_on_members,
    "vmap": partial(fit_members, strategy="vmap"),
    "vmap, early stopping": partial(fit_members, strategy="vmap", epochs=9, patience=2),
    "vmap of a source": partial(fit_members, data=SOURCE, strategy="vmap"),
    "batch over devices": fit_on_batches,
    "folds": partial(fit, data=WEIGHTED, folds=FOLDS, validation=None),
    "folds in groups": partial(fit, data=WEIGHTED, folds=FOLDS, validation=None, group=2),
    "sweep": fit_sweep,
    "sweep in groups": partial(fit_sweep, group=2),
}
ALL_KINDS = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Gather the examples of at most 5 steps at a time from a source."""
    monkeypatch.setattr(prefetch, "BYTES", 5 * 4 * (4 * 4 + 4))


@pytest.fixture(scope="module")
def undisturbed():
    """Return a function that returns the result of a kind of run, trained once."""
    results = {}

    def result(kind):
        if kind not in results:
            results[kind] = KINDS[kind]()
        return results[kind]

    return result


# The host changes no bit ---------------------------------------------------------------------------------------------


@ALL_KINDS
def test_chunks_change_no_bit(kind, undisturbed, monkeypatch):
    if "sweep" not in kind:
        for chunk_steps in (1, 7, 1000):
            assert_same_result(KINDS[kind](chunk_steps=chunk_steps), undisturbed(kind))
    monkeypatch.setattr(host_loop, "CHUNK_SECONDS", 0.0)  # chunks of one step
    assert_same_result(KINDS[kind](), undisturbed(kind))


@ALL_KINDS
def test_saving_and_callbacks_change_no_bit(kind, undisturbed, tmp_path):
    """A run that is finished and resumed returns the same at once."""
    steps = []
    watch = {"callbacks": [lambda ts, record: steps.append(record["step"])], "callback_every": 3, "progress": True}
    assert_same_result(KINDS[kind](out=tmp_path, save_every=0, **watch), undisturbed(kind))
    assert steps
    steps.clear()
    assert_same_result(KINDS[kind](out=tmp_path, resume=True, **watch), undisturbed(kind))
    assert not steps


@pytest.mark.parametrize("kind", ["single run", "full batch", "vmap"])
def test_validation_changes_no_bit(kind, undisturbed):
    assert_same_training(KINDS[kind](validation=None), undisturbed(kind))


@ALL_KINDS
def test_stopped_and_resumed_it_ends_as_if_never_stopped(kind, undisturbed, tmp_path):
    often = {"out": tmp_path, "resume": True, "save_every": 0, "chunk_steps": 3, "callback_every": 4}
    lives, steps = 0, [0]
    while steps and lives < 50:
        lives, steps = lives + 1, []

        def stop(ts, record, calls=2 - lives % 2, steps=steps):
            steps.append(record["step"])
            return len(steps) >= calls

        result = KINDS[kind](callbacks=[stop], **often)
    assert 3 <= lives < 50
    assert_same_result(result, undisturbed(kind))


# Members and groups --------------------------------------------------------------------------------------------------


def fit_fold(i, key):
    rows, held_out = own_rows(FOLDS.train, i), own_rows(FOLDS.held_out, i)
    return fit(data=take(WEIGHTED, rows), validation=take(WEIGHTED, held_out), key=key)


SINGLE = {  # the run of member i
    "map": lambda i, key: fit(key=key),
    "map, an optimizer that draws": lambda i, key: fit(DRAWS, WEIGHTED, epochs=9, key=key),
    "map, early stopping": lambda i, key: fit(epochs=9, patience=2, key=key),
    "folds": fit_fold,
}


@pytest.mark.parametrize("kind", SINGLE)
def test_a_member_is_the_single_run_with_its_key(kind, undisturbed):
    members = undisturbed(kind)
    singles = [SINGLE[kind](i, key) for i, key in enumerate(KEYS)]
    for i, single in enumerate(singles):
        assert_equal(index_tree(members.ts, i), single.ts)
        for name in ("params", "state", "step") if kind == "folds" else single.best._fields:
            assert_equal(index_tree(getattr(members.best, name), i), getattr(single.best, name))
        assert (members.diverged[i], members.stopped[i]) == (single.diverged, single.stopped)
        taken = len(single.losses)
        np.testing.assert_array_equal(members.losses[i, :taken], single.losses)
        assert np.isnan(members.losses[i, taken:]).all()
        rtol = 1e-5 if kind == "folds" else 0  # a fold is validated on a padded table
        for record, expected in zip(members.history, single.history, strict=False):
            for name in expected.keys() - {"epoch", "step"}:
                np.testing.assert_allclose(record[name][i], expected[name], rtol=rtol)
        for record in members.history[len(single.history) :]:  # a network that stopped keeps its score
            assert record["validation_loss"][i] == members.history[len(single.history) - 1]["validation_loss"][i]
    assert len(members.history) == max(len(single.history) for single in singles)
    assert not np.array_equal(members.losses[0], members.losses[1])


SAME = {
    "map in groups": "map, early stopping",
    "map over devices": "map, early stopping",
    "source": "single run",
    "map of a source in groups": "map",
    "vmap of a source": "vmap",
    "folds in groups": "folds",
    "sweep in groups": "sweep",
}


@pytest.mark.parametrize("kind", SAME)
def test_groups_devices_and_sources_change_no_bit(kind, undisturbed):
    assert_same_result(undisturbed(kind), undisturbed(SAME[kind]))


def test_a_sweep_of_a_source_has_the_bits_of_memory(undisturbed):
    assert_same_result(fit_sweep(data=SOURCE), undisturbed("sweep"))


def test_a_setting_of_a_sweep_is_a_sweep_of_one(undisturbed):
    many = undisturbed("sweep")
    for i in range(3):
        one = fit_sweep({name: [values[i]] for name, values in SWEPT.items()})
        assert_equal(index_tree((many.ts, many.best), i), index_tree((one.ts, one.best), 0))
        np.testing.assert_array_equal(many.losses[i], one.losses[0])


@pytest.mark.parametrize("kind", ["map, early stopping", "vmap, early stopping", "folds"])
def test_members_end_at_different_steps(kind, undisturbed):
    """Otherwise the tests of this file say little about such members."""
    result = undisturbed(kind)
    assert len(set(np.asarray(result.ts.step).tolist())) > 1
    assert result.stopped.any() == ("early stopping" in kind)


def test_keys_of_members_are_split_from_the_key(undisturbed):
    assert_same_result(fit(members=3), undisturbed("map"))
    assert_same_result(fit(members=3, strategy="vmap"), undisturbed("vmap"))


def test_one_member_is_an_ensemble_of_one():
    many, single = fit(members=1), fit(key=jax.random.split(KEY, 1)[0])
    assert many.losses.shape == (1, 15)
    assert many.history[0]["loss"].shape == (1,)
    assert_equal(index_tree((many.ts, many.best), 0), (single.ts, single.best))


# Programs ------------------------------------------------------------------------------------------------------------


@ALL_KINDS
def test_a_second_call_compiles_nothing(kind, undisturbed, caplog):
    """The second call has a different key, hyper-parameters, epochs and chunks."""
    undisturbed(kind)
    other = {"key": jax.random.key(7), "epochs": 4.3, "chunk_steps": 3, "validate_every": 2, "patience": 3}
    if "sweep" in kind:
        other["hyper"] = {name: values[::-1] for name, values in SWEPT.items()}
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        KINDS[kind](**other)
    assert not [record.getMessage() for record in caplog.records if "ompiling" in record.getMessage()]


@pytest.mark.parametrize("kind", ["single run", "map", "vmap"])
def test_a_run_is_a_pure_function_of_key_and_data(kind, undisturbed):
    assert_same_result(KINDS[kind](), undisturbed(kind))
    assert not np.array_equal(KINDS[kind](key=jax.random.key(6)).losses, undisturbed(kind).losses)
