"""A trial of a search that is trained again has the bits of the search."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from train_runs import BATCH, DATA, HELD_OUT, KEY, X, assert_equal, make_swept, mesh

from nnjax import losses, nn, optim, train

SPACE = {
    "rate": train.log_uniform(1e-3, 0.1),
    "dropout": train.uniform(0, 0.5),
    "smoothing": train.choice([0.0, 0.1, 0.2]),
}


def both(make=make_swept, space=SPACE, **settings):
    """Return a search, and a function that trains one of its trials again."""
    shared = {"validation": HELD_OUT, "trials": 9, "population": 3, "rungs": (1, 2), "key": KEY} | settings
    networks = shared.pop("networks", 10)
    found = train.search(make, space, DATA, progress=False, networks=networks, **shared)
    return found, lambda trial: train.replay_trial(make, space, DATA, found.table, trial, **shared)


def assert_same_trial(found, again, row):
    scores = {epochs: row[f"score_{epochs:g}"] for epochs in (1.0, 2.0, 3.0) if f"score_{epochs:g}" in row}
    assert again.scores == {epochs: score for epochs, score in scores.items() if math.isfinite(score)}
    kept = {network.trial: network for network in found.networks}
    if row["trial"] in kept:
        network = kept[row["trial"]]
        assert again.network[:4] == network[:4]
        assert_equal((again.network.params, again.network.state), (network.params, network.state))
        assert again.network.replicates == network.replicates


@pytest.mark.parametrize("method", ["halving", "tpe", "hyperband"])
def test_every_trial_has_the_bits_of_the_search(method):
    found, replay = both(method=method, networks=3)
    for row in found.table[:4] + found.table[-1:]:
        assert_same_trial(found, replay(row["trial"]), row)


def test_copies_go_through_their_ancestors():
    found, replay = both(method="pbt", rungs=(1, 2, 3), keep=0.4, networks=9)
    copies = [row for row in found.table if row["parent"] >= 0]
    assert copies
    for row in copies:
        again = replay(row["trial"])
        scores = {1.0: row["score_1"], 2.0: row["score_2"], 3.0: row["score_3"]}
        assert again.scores == {epochs: score for epochs, score in scores.items() if math.isfinite(score)}
        assert 1.0 not in again.scores
        assert_same_trial(found, again, row)


@pytest.mark.filterwarnings("ignore:search. trial .* within noise")
def test_seeds_folds_and_structures():
    def make(hyper):
        return train.Run(nn.mlp([hyper["width"]], 2), losses.cross_entropy, optim.sgd(hyper["rate"]), batch_size=BATCH)

    space = {"rate": train.log_uniform(1e-3, 0.3), "width": train.structure([4, 8])}
    found, replay = both(make, space, seeds=2)
    for row in (found.table[0], found.table[-1]):
        assert_same_trial(found, replay(row["trial"]), row)
    folds = train.k_fold(KEY, len(X), 3)
    found, replay = both(folds=folds, validation=None)
    assert_same_trial(found, replay(found.best.trial), found.table[0])


@pytest.mark.parametrize("kind", ["devices", "vmap"])
def test_the_program_is_that_of_the_search(kind):
    found, replay = both(**({"mesh": mesh(members=2)} if kind == "devices" else {"strategy": "vmap"}))
    assert_same_trial(found, replay(found.best.trial), found.table[0])


@pytest.mark.filterwarnings("ignore:search. all trials diverged")
def test_a_trial_that_diverged_names_its_origin():
    def make(hyper):
        net = nn.serial(nn.dense(8), nn.dense(2))
        return train.Run(net, losses.cross_entropy, optim.sgd(hyper["rate"]), batch_size=BATCH)

    found, replay = both(make, {"rate": train.log_uniform(1e20, 1e30)})
    row = found.table[0]
    assert row["status"] == "diverged"
    again = replay(row["trial"])
    assert again.network is None
    assert again.scores == {}
    assert again.origin is not None
    assert re.match(r"step \d+: (layer|update|loss)", str(again.origin)), again.origin


def test_mistakes():
    found, replay = both()
    with pytest.raises(ValueError, match=r"the table has no trial 99; expected 0 to 8"):
        replay(99)
    given = {"validation": HELD_OUT, "trials": 9, "population": 3, "rungs": (1, 2), "key": KEY}
    with pytest.raises(ValueError, match=r"pass the rungs of the search; .* score_1, score_2"):
        train.replay_trial(make_swept, SPACE, DATA, found.table, 0, **given | {"rungs": (1, 3)})
    with pytest.raises(ValueError, match=r"the table has no column 'other'"):
        train.replay_trial(make_swept, SPACE | {"other": train.uniform(0, 1)}, DATA, found.table, 0, **given)
    with pytest.raises(ValueError, match=r"pass the validation= or the folds= of the search"):
        train.replay_trial(make_swept, SPACE, DATA, found.table, 0, **given | {"validation": None})
    frame = pd.DataFrame(found.table)
    for table in (frame, found, [], found.table[0]):
        with pytest.raises(TypeError, match=r"table must be the table of the search, a list with a dictionary"):
            train.replay_trial(make_swept, SPACE, DATA, table, 0, **given)
    assert train.replay_trial(make_swept, SPACE, DATA, frame.to_dict("records"), 0, **given).scores == replay(0).scores
    assert np.isfinite(replay(0).scores[1.0])
