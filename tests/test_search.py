"""Searches: a trial has the bits of a sweep, resuming has those of a search never stopped, and results are ranked."""

import itertools
import logging
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_runs import BATCH, DATA, HELD_OUT, KEY, X, assert_close, assert_equal, make_swept, mesh, sweep

from nnjax import data, losses, metrics, nn, optim, train, uncertainty
from nnjax.storage import checkpoint, tensor_file
from nnjax.train.engine.ensemble import Ensemble, index_tree
from nnjax.train.engine.job import first_state
from nnjax.train.engine.make_job import make_job
from nnjax.train.engine.options import FitOptions
from nnjax.train.engine.search import loop, results
from nnjax.train.engine.search.population import population_programs
from nnjax.train.engine.search.schedule import Moves

SPACE = {
    "rate": train.log_uniform(1e-3, 0.1),
    "dropout": train.uniform(0, 0.5),
    "smoothing": train.choice([0.0, 0.1, 0.2]),
}


def search(make=make_swept, space=SPACE, examples=DATA, **settings):
    settings = {"validation": HELD_OUT, "trials": 7, "population": 3, "rungs": (1, 2), "key": KEY} | settings
    return train.search(make, space, examples, **settings)


def by_number(found):
    """Return the rows of the table in the order of the trials."""
    return sorted(found.table, key=lambda row: row["trial"])


def settings_of(rows):
    return {name: np.array([row[name] for row in rows]) for name in SPACE}


def assert_same_search(a, b):
    np.testing.assert_equal(a.table, b.table)
    assert [network.trial for network in a.networks] == [network.trial for network in b.networks]
    for one, other in zip(a.networks, b.networks, strict=True):
        assert_equal((one.params, one.state), (other.params, other.state))


def linear(hyper):
    return train.Run(nn.dense(2), losses.cross_entropy, optim.sgd(hyper["rate"]), batch_size=BATCH)


NOISE = pytest.mark.filterwarnings("ignore:search. trial .* within noise")
RATE = {"rate": train.log_uniform(1e-3, 0.3)}


# Bits ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("population", [3, 7])
def test_with_one_rung_a_search_is_a_sweep(population):
    """Also for trials that begin in a slot that another one has left."""
    found = search(rungs=(2,), population=population)
    rows = by_number(found)
    swept = sweep(hyper=settings_of(rows), group=population)
    scores = swept.result.history[-1]["validation_loss"]
    assert [row["score"] for row in rows] == scores.tolist()
    assert [row["validation_accuracy"] for row in rows] == swept.result.history[-1]["validation_accuracy"].tolist()
    assert len(found.networks) == 7
    for network in found.networks:
        assert_equal(network.params, index_tree(swept.result.ts.params, network.trial))
        assert_equal(network.state, index_tree(swept.result.ts.state, network.trial))
    assert [row["score"] for row in found.table] == sorted(scores.tolist())


def test_a_trial_that_is_not_stopped_has_the_bits_of_a_sweep():
    """Trials begin at different times, and members are at different steps; each takes the batches of these steps."""
    found = search()
    rows = by_number(found)
    assert {row["status"] for row in rows} == {"stopped", "finished"}
    one, two = (sweep(hyper=settings_of(rows), epochs=epochs).result for epochs in (1, 2))
    for row in rows:
        i = row["trial"]
        assert row["score_1"] == one.history[-1]["validation_loss"][i]
        if row["status"] == "finished":
            assert row["score_2"] == two.history[-1]["validation_loss"][i]
    for network in found.networks:
        result = one if network.epochs == 1 else two
        assert_equal(network.params, index_tree(result.ts.params, network.trial))


def test_patience_is_the_early_stopping_of_fit():
    """With a rung after each epoch and patience, a random search is a sweep with patience."""
    found = search(linear, {"rate": train.log_uniform(1e-3, 3)}, method="random", rungs=range(1, 9), patience=2)
    rows = by_number(found)
    swept = sweep(linear, {"rate": [row["rate"] for row in rows]}, epochs=8, patience=2).result
    stopped = [row["status"] == "stopped" for row in rows]
    assert 0 < sum(stopped) < len(rows)
    assert [row["score"] for row in rows] == swept.best.score.tolist()
    assert [5 * row["epochs"] for row in rows] == np.asarray(swept.ts.step).tolist()
    for network in found.networks:
        assert_equal(network.params, index_tree(swept.best.params, network.trial))


@pytest.mark.parametrize("method", ["halving", "pbt"])
def test_devices_share_the_members(method):
    """Three slots on two devices: one is padding. As for sweeps, the programs differ, so the numbers do in rounding."""
    alone, shared = search(method=method), search(method=method, mesh=mesh(members=2))
    for one, other in zip(by_number(alone), by_number(shared), strict=True):
        assert one["status"] == other["status"]
        assert one["score"] == pytest.approx(other["score"], rel=1e-5)
    for one, other in zip(alone.networks, shared.networks, strict=True):
        assert_close(one.params, other.params)


def test_vmap_agrees_to_rounding():
    plain, lockstep = (search(linear, RATE, method="random", strategy=strategy) for strategy in ("map", "vmap"))
    for a, b in zip(by_number(plain), by_number(lockstep), strict=True):
        assert a["score"] == pytest.approx(b["score"], rel=1e-5)


def test_data_on_disk_give_the_same_bits():
    """Members at different steps read their own rows."""
    x, y = np.asarray(DATA.x), np.asarray(DATA.y)
    assert_same_search(search(linear, RATE, data.source(x, y)), search(linear, RATE))


def test_copies_have_the_bits_of_their_donors():
    """Slot 0 takes the networks of slot 2, two each; slot 1 begins anew; slot 2 keeps its own."""
    rates = jnp.repeat(jnp.array([0.1, 0.2, 0.3]), 2)
    keys = jnp.tile(jax.random.split(KEY, 2), 3)
    ensemble = Ensemble(make_swept, 6)
    hyper = {"rate": rates, "dropout": rates, "smoothing": rates}
    job = make_job(ensemble, keys, hyper, DATA, options=FitOptions(epochs=1), validation=HELD_OUT)
    programs = population_programs(job, 2)
    before = loop_state(job, steps=4)
    copy = jax.tree.map(jnp.copy, before)
    after = programs.move(copy, Moves(np.array([2, 1, 2]), np.array([False, True, False])), hyper)
    for slot, source in ((0, 2), (2, 2)):
        for replicate in range(2):
            assert_equal(index_tree(after, 2 * slot + replicate), index_tree(before, 2 * source + replicate))
    assert after.train.step.tolist() == [4, 4, 0, 0, 4, 4]
    assert_equal(index_tree(after, slice(2, 4)), index_tree(loop_state(job, steps=0), slice(2, 4)))


def loop_state(job, steps):
    """Return the state of a job after some steps."""
    members = job.ensemble.members
    advance = loop.advance_function(job)
    start = first_state(job, validated=False)
    return advance(start, job.members.hyper, np.zeros(members, int), np.full(members, steps))[0]


# Resuming ------------------------------------------------------------------------------------------------------------


class BrokenError(Exception):
    pass


def break_after(decisions):
    """Return a callback that raises an error after this many decisions."""
    calls = []

    def callback(table):
        calls.append(len(table))
        if len(calls) == decisions:
            raise BrokenError

    return callback


@pytest.mark.parametrize("method", ["halving", "pbt", "tpe"])
def test_a_resumed_search_has_the_bits_of_one_never_stopped(method, tmp_path):
    saved = {"method": method, "trials": 12, "out": tmp_path, "resume": True}
    whole = search(method=method, trials=12)
    for decisions in (1, 3):
        with pytest.raises(BrokenError) as error:
            search(**saved, save_every=0, callbacks=[break_after(decisions)])
        assert "resume=True continues" in error.value.__notes__[0]
    assert_same_search(search(**saved), whole)
    assert_same_search(search(**saved), whole)  # a finished one


def test_a_search_that_is_interrupted_within_a_round_is_resumed(tmp_path, monkeypatch):
    """Every second look for a signal finds one. A round of five steps is cut by chunks of growing length."""
    whole, folders = search(), []
    while len(folders) < 100:
        looks = itertools.cycle([False, True])
        monkeypatch.setattr(
            loop,
            "all_agree",
            lambda size, flags, looks=looks: (size, (*flags[:-1], next(looks)) if flags[1:] else flags),
        )
        try:
            resumed = search(out=tmp_path, resume=True)
            break
        except train.InterruptedRun as stop:
            folders.append(stop.folder)
    assert len(folders) > 5
    assert set(folders) == {tmp_path}
    assert_same_search(resumed, whole)


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_search import linear, search, RATE, assert_same_search

calls = []

def kill(table):
    calls.append(table)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[1] == "kill":
    search(linear, RATE, out={out!r}, save_every=0, callbacks=[kill])
assert_same_search(search(linear, RATE, out={out!r}, resume=True), search(linear, RATE))
print("the same")
"""


def test_a_killed_search_is_resumed(tmp_path):
    def run(mode):
        script = SCRIPT.format(tests=str(Path(__file__).parent), out=str(tmp_path))
        return subprocess.run([sys.executable, "-c", script, mode], check=False, capture_output=True, text=True)

    assert run("kill").returncode == -signal.SIGKILL
    assert any(tmp_path.iterdir())
    finished = run("finish")
    assert finished.stdout == "the same\n", finished.stderr


def test_an_interrupted_search_without_a_folder_says_so():
    with pytest.raises(train.InterruptedRun, match=r"not saved, because out= was not passed$"):
        search(callbacks=[lambda table: os.kill(os.getpid(), signal.SIGINT)])


def test_a_different_search_is_not_resumed(tmp_path):
    rungs = (1, 2, 3)
    search(out=tmp_path, rungs=rungs)
    with pytest.raises(FileExistsError, match=r"without train\.structure"):
        search(linear, RATE | {"n": train.structure([1])}, out=tmp_path)
    with pytest.raises(FileExistsError, match="resume=True"):
        search(out=tmp_path)
    for change, name in (
        ({"keep": 0.5}, "keep"),
        ({"method": "tpe"}, "method"),
        ({"trials": 8}, "trials"),
        ({"patience": 1}, "patience"),
    ):
        with pytest.raises(train.RunMismatchError, match=name):
            search(out=tmp_path, resume=True, rungs=rungs, **change)


def rewrite(path, change_tree=lambda tree: tree, change_metadata=lambda metadata: metadata):
    """Change the content of a checkpoint, as another version of nnjax might have written it."""
    leaves, header = tensor_file.read(path)
    checkpoint.save(path, change_tree(leaves), change_metadata(header.metadata))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"change_tree": lambda tree: {name.replace("units", "points"): leaf for name, leaf in tree.items()}},
            r"(?s)cannot continue the search saved in .*search/ledger/points.*search/ledger/units.*continue with the "
            "version that began the search.*choose another out=",
        ),
        (
            {"change_metadata": lambda metadata: {"print" if k == "fingerprint" else k: metadata[k] for k in metadata}},
            r"(?s)its metadata has an unknown entry 'print'.*continue with the version that began the search",
        ),
        (
            {"change_metadata": lambda metadata: {k: metadata[k] for k in metadata if k != "logs"}},
            r"(?s)its metadata .*'?logs'?.*continue with the version that began the search",
        ),
    ],
)
def test_a_checkpoint_of_another_version_is_named(tmp_path, change, message):
    search(linear, RATE, out=tmp_path)
    for path in checkpoint.files(tmp_path):
        rewrite(path, **change)
    with pytest.raises(ValueError, match=message):
        search(linear, RATE, out=tmp_path, resume=True)


def test_a_search_of_another_size_is_not_resumed_anyway(tmp_path):
    search(linear, RATE, out=tmp_path)
    with pytest.raises(train.RunMismatchError, match=r"(?s)trials .*pass the saved values") as error:
        search(linear, RATE, out=tmp_path, resume=True, trials=8)
    assert not error.value.resumable
    with pytest.raises(ValueError, match=r"(?s)cannot continue .*search/ledger/units.*pass its arguments"):
        search(linear, RATE, out=tmp_path, resume="anyway", trials=8)


# Results -------------------------------------------------------------------------------------------------------------


def test_a_score_whose_lowest_value_is_the_worst_is_refused():
    with pytest.raises(ValueError, match="'accuracy' would find the worst trial; pass '-accuracy'"):
        search(score="accuracy")


def test_the_best_network_predicts():
    found = search(score="-accuracy", trials=5)
    best = found.best
    assert best == found.networks[0]
    assert found.table[0] | best.settings == found.table[0]
    logits = best.run.predict(best.params, best.state, HELD_OUT.x)
    accuracy = float(metrics.accuracy(logits, HELD_OUT.y))
    assert accuracy == pytest.approx(found.table[0]["validation_accuracy"]) == pytest.approx(-best.score)
    assert accuracy == max(row["validation_accuracy"] for row in found.table)


def test_trials_are_ranked_by_their_lowest_score_and_keep_the_network_that_had_it():
    """At a rate of 3, the loss is lower after the first epoch than after the second for some of the trials."""
    found = search(linear, {"rate": train.uniform(0.5, 3)}, trials=9, networks=9, keep=1.0)
    for row in found.table:
        assert row["score"] == row["validation_loss"] == min(row["score_1"], row["score_2"])
        assert row["epochs"] == 2
    scores = [row["score"] for row in found.table]
    assert scores == sorted(scores)
    assert [network.trial for network in found.networks] == [row["trial"] for row in found.table]
    assert {network.epochs for network in found.networks} == {1, 2}
    for network in found.networks:
        logits = network.run.predict(network.params, network.state, HELD_OUT.x)
        assert float(losses.cross_entropy(logits, HELD_OUT.y).mean()) == pytest.approx(network.score, rel=1e-6)


@NOISE
def test_seeds_are_averaged():
    found = search(linear, RATE, rungs=(2,), trials=3, seeds=2)
    rows = by_number(found)
    swept = sweep(linear, {"rate": [row["rate"] for row in rows]}, seeds=2)
    by_rate = {row["rate"]: row for row in swept.table}
    for row in rows:
        same = by_rate[row["rate"]]
        assert row["score"] == pytest.approx(same["validation_loss"], rel=1e-6)
        assert row["validation_loss_sd"] == pytest.approx(same["validation_loss_sd"], rel=1e-6)
    assert found.best.params["w"].shape == (2, 3, 2)


@NOISE
def test_folds():
    """Of 13 or 14 rows, folds have epochs of different lengths; each network is trained on its own rows."""
    folds = train.k_fold(jax.random.key(3), 20, 3)
    found = search(linear, RATE, folds=folds, validation=None, rungs=(1, 3), trials=4, population=2, keep=1.0)
    for network in found.networks:
        alone = train.fit(network.run, DATA, folds=folds, epochs=3, key=KEY, progress=False)
        assert_close(network.params, alone.ts.params)
        assert network.score == pytest.approx(float(alone.history[-1]["validation_loss"].mean()), rel=1e-5)
    one = found.ensemble(1)
    parts = [rows[:size] for rows, size in zip(*folds.held_out, strict=True)]
    (best,) = one.members
    by_row = np.zeros(20)
    for fold, rows in enumerate(parts):
        params, state = index_tree((best.params, best.state), fold)
        by_row[rows] = losses.cross_entropy(best.run.predict(params, state, DATA.x[rows]), DATA.y[rows])
    assert one.score == pytest.approx(
        by_row.mean(), rel=1e-5
    )  # each row is predicted by a network that has not seen it


@pytest.mark.filterwarnings("ignore:search. make_run does not read unused")
def test_an_advantage_within_noise_is_a_warning():
    same = {"unused": train.choice([1, 2, 3])}
    with pytest.warns(UserWarning, match="within noise"):
        found = search(lambda hyper: linear({"rate": 0.1}), same, seeds=2, rungs=(1,), trials=3)
    assert found.advantage == (0, 0, 0, 2)


def test_a_diverged_trial_makes_room_and_comes_last():
    def unstable(hyper):
        return train.Run(nn.dense(1), losses.squared_error, optim.sgd(hyper["rate"]), batch_size=BATCH)

    pairs = (X, X[:, :1])
    rates = {"rate": train.choice([0.001, 0.01, 1e9])}
    found = search(unstable, rates, pairs, validation=pairs, rungs=(2, 4), trials=8, population=2, keep=1.0)
    lost = [row for row in found.table if row["rate"] == 1e9]
    assert 0 < len(lost) < 8
    assert found.table[-len(lost) :] == lost
    assert all(row["status"] == "diverged" and row["diverged"] > 0 and math.isnan(row["score"]) for row in lost)
    assert all(row["status"] == "finished" for row in found.table[: -len(lost)])
    assert len(found.networks) == 8 - len(lost)
    with pytest.warns(RuntimeWarning, match="all trials diverged"):
        nothing = search(unstable, {"rate": train.choice([1e9])}, pairs, validation=pairs, trials=2)
    assert nothing.best is None
    with pytest.raises(ValueError, match="diverged"):
        nothing.ensemble(1)


def test_rank_correlations():
    """With keep=1, all trials have all scores."""
    found = search(linear, RATE, keep=1.0, trials=6)
    rows = by_number(found)
    ranks = [np.argsort(np.argsort([row[name] for row in rows])) for name in ("score_1", "score_2")]
    assert found.rank_correlations == [pytest.approx(np.corrcoef(*ranks)[0, 1])]
    assert math.isnan(search(linear, RATE, trials=2).rank_correlations[0])


def test_structures_are_groups_that_share_the_trials():
    """Of 12 trials, the first round has 3 for each activation, the second one 6 for the better one."""

    def make(hyper):
        net = nn.serial(nn.dense(4), hyper["activation"], nn.dense(2))
        return train.Run(net, losses.cross_entropy, optim.adam(hyper["rate"]), batch_size=hyper["batch"])

    activations = (jnp.tanh, jax.nn.relu)
    space = RATE | {"activation": train.structure(activations), "batch": train.structure([BATCH])}
    found = search(make, space, trials=12, keep=0.5, population=2, networks=12)
    rows = by_number(found)
    assert [row["trial"] for row in rows] == list(range(12))
    firsts = [row["activation"] for row in rows[:6]]
    assert firsts == [activations[0]] * 3 + [activations[1]] * 3
    best = min(rows[:6], key=lambda row: row["score"])
    assert [row["activation"] for row in rows[6:]] == [best["activation"]] * 6
    assert [network.trial for network in found.networks] == [row["trial"] for row in found.table]
    assert found.best.run.batch_size == BATCH
    assert len({row["rate"] for row in rows}) == 12
    logits = found.best.run.predict(found.best.params, found.best.state, X)
    assert logits.shape == (20, 2)


def test_ensemble_is_selected_greedily():
    found = search(linear, RATE, trials=6, rungs=(2,))
    three = found.ensemble(3)
    assert len(three.members) == 3
    logits = [m.run.predict(m.params, m.state, HELD_OUT.x) for m in three.members]
    expected = uncertainty.log_mean_probabilities(jnp.stack(logits))
    np.testing.assert_allclose(three.predict(HELD_OUT.x), expected, rtol=1e-6)
    alone = [
        float(losses.cross_entropy(n.run.predict(n.params, n.state, HELD_OUT.x), HELD_OUT.y).mean())
        for n in found.networks
    ]
    assert three.members[0].trial == found.networks[int(np.argmin(alone))].trial
    assert found.ensemble(2).score <= min(alone) + 1e-6  # the best one twice is a candidate


@NOISE
def test_ensembles_of_regressions_are_means():
    def make(hyper):
        return train.Run(nn.dense(1), losses.squared_error, optim.sgd(hyper["rate"]), batch_size=BATCH)

    pairs = (X, X[:, :1])
    found = search(make, RATE, pairs, validation=pairs, trials=3, rungs=(1,), seeds=2, networks=2)
    pair = found.ensemble(2)
    predictions = [jax.vmap(m.run.predict, (0, 0, None))(m.params, m.state, X) for m in pair.members]
    np.testing.assert_allclose(pair.predict(X), jnp.concatenate(predictions).mean(0), rtol=1e-6)


def test_callbacks_see_the_table_and_end_the_search():
    tables = []

    def callback(table):
        tables.append(table)
        return len(tables) == 2

    found = search(linear, RATE, trials=20, callbacks=[callback])
    assert len(tables) == 2
    assert len(found.table) == len(tables[1]) < 20
    assert found.best is not None


@pytest.mark.parametrize("method", ["halving", "pbt"])
def test_tables_for_callbacks_reuse_the_rows_of_ended_trials(method, monkeypatch):
    rows, tables = [], []
    make_row = results._row
    monkeypatch.setattr(results, "_row", lambda group, trial: rows.append(trial) or make_row(group, trial))

    def callback(table):
        tables.append([dict(row) for row in table])
        table[0]["score"] = None  # is not seen by later calls

    found = search(linear, RATE, trials=40, population=4, method=method, callbacks=[callback])
    assert len(rows) <= 40 + 4 * len(tables) + 40  # ended trials; running trials; the table of the result
    np.testing.assert_equal(tables[-1], found.table)


def test_nothing_recompiles_for_new_trials_and_a_second_search(caplog):
    key = jax.random.key(9)
    search(linear, RATE, trials=5)  # more trials than slots
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        search(linear, RATE, trials=20, key=key)
    assert not [record.getMessage() for record in caplog.records if "ompiling" in record.getMessage()]


# Mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"space": {}}, TypeError, "space must be a dictionary"),
        ({"space": {"rate": (0.1, 1)}}, TypeError, r"rate must be train.uniform"),
        ({"space": {"score": train.uniform(0, 1)}}, ValueError, "'score' is a column"),
        ({"rungs": (3, 1)}, ValueError, "ascending"),
        ({"rungs": ()}, ValueError, "ascending|at least one"),
        ({"rungs": (0.1, 0.15)}, ValueError, "a step apart"),
        ({"keep": 0.0}, ValueError, r"keep must be in \(0, 1\]"),
        ({"method": "grid"}, ValueError, "method"),
        ({"patience": 0}, ValueError, "patience must be ≥ 1"),
        (
            {"rungs": (1, 2, 3), "patience": 2},
            ValueError,
            "patience=2 stops no trial: with 3 rungs, it must be at most 1",
        ),
        ({"rungs": (1, 2), "patience": 1}, ValueError, "with 2 rungs, it must be omitted"),
        ({"trials": 0}, ValueError, "trials must be ≥ 1"),
        ({"score": "f1"}, ValueError, r"\(loss\), with a minus"),
        ({"validation": None}, ValueError, "pass validation= or folds="),
        ({"callbacks": print}, TypeError, "callbacks must be a sequence"),
        ({"out": 5}, TypeError, "out must be a folder"),
        ({"resume": "yes"}, ValueError, "resume must be True, False or 'anyway'"),
        ({"folds": 5}, TypeError, "folds must be train.Folds"),
        ({"folds": train.k_fold(KEY, 20, 2), "seeds": 2}, ValueError, "seeds must be 1"),
        ({"space": RATE | {"n": train.structure(range(9))}}, ValueError, "trials ≥"),
    ],
)
def test_mistakes_are_named(change, error, message):
    settings = {"space": RATE} | change
    with pytest.raises(error, match=message):
        search(linear, **settings)


def test_mistakes_in_make_run_are_explained():
    net = lambda hyper: nn.mlp([4] * hyper["rate"], 2)  # noqa: E731
    wrong = {
        "make_run reads 'lr', but the space has only rate, n": lambda hyper: linear({"rate": hyper["lr"]}),
        r"make_run gets rate as JAX arrays; .* put them in train.structure": lambda hyper: train.Run(
            net(hyper), losses.cross_entropy, optim.sgd(0.1), batch_size=BATCH
        ),
    }
    for message, make in wrong.items():
        with pytest.raises((KeyError, TypeError)) as error:
            search(make, {"rate": train.choice([1, 2]), "n": train.structure([1])})
        assert re.search(message, "; ".join(error.value.__notes__))
    with pytest.raises(TypeError, match=r"^make_run: its result must be a train\.Run"):
        search(lambda hyper: None, RATE)


def test_a_setting_that_no_structure_reads_is_a_warning():
    def make(hyper):
        return linear({"rate": 0.1 if hyper["fixed"] else hyper["rate"]})

    fixed = {"fixed": train.structure([True, False])}
    few = {"trials": 4, "population": 2, "rungs": (1,)}
    search(make, RATE | fixed, **few)
    with pytest.warns(UserWarning, match="search: make_run does not read n, depth, .* remove it from the space"):
        search(make, RATE | fixed | {"n": train.choice([1, 2]), "depth": train.structure([3])}, **few)


@NOISE
def test_the_best_trial_of_several_seeds_predicts_with_vmap():
    found = search(linear, RATE, rungs=(1,), trials=3, seeds=2)
    best = found.best
    logits = jax.vmap(best.run.predict, (0, 0, None))(best.params, best.state, HELD_OUT.x)
    assert logits.shape == (2, len(HELD_OUT.x), 2)
    assert found.ensemble(1).predict(HELD_OUT.x).shape == (len(HELD_OUT.x), 2)
    with pytest.raises(ValueError, match=r"leading axis .* jax\.vmap\(run\.predict, \(0, 0, None\)\)"):
        best.run.predict(best.params, best.state, HELD_OUT.x)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: train.uniform(1, 0), ValueError, "low must be < high"),
        (lambda: train.uniform("0", 1), ValueError, "low must be one number, got '0'$"),
        (lambda: train.log_uniform(0, 1), ValueError, "> 0"),
        (lambda: train.choice([]), ValueError, "non-empty list"),
        (lambda: train.choice([1, 1]), ValueError, "without duplicates"),
        (lambda: train.choice(["relu", "tanh"]), TypeError, r"train.structure"),
        (lambda: train.structure([[1], [2]]), TypeError, "hashable"),
        (lambda: train.structure("relu"), TypeError, "must be a list"),
    ],
)
def test_wrong_dimensions_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
