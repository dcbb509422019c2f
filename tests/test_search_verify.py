"""`nnjax verify`, `nnjax replay` and `--plan` of a search."""

import hashlib
import json
import re
import shutil

import pandas as pd
import pytest
from runs import assert_mistake, nnjax, read_json, succeed

from nnjax.storage.json_file import json_digest

SMALL = ("--width", "4..8:int", "--depth", "1", "--batch-size", "32", "--norm", "none", "--rungs", "1,2")
GIVEN = ("digits", "--learning-rate", "1e-3..0.1:log", *SMALL, "--population", "4", "--trials", "10")


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    path = tmp_path_factory.mktemp("search") / "run"
    succeed("search", *GIVEN, "--out", path, "--no-plots")
    return path


def edit(path, change):
    """Apply a change to search.csv, and update its checksum in the receipt."""
    table = pd.read_csv(path / "search.csv", dtype=str)
    change(table)
    table.to_csv(path / "search.csv", index=False)
    receipt = read_json(path / "receipt.json")
    del receipt["sha256"]
    receipt["files"]["search.csv"] = hashlib.sha256((path / "search.csv").read_bytes()).hexdigest()
    (path / "receipt.json").write_text(json.dumps({**receipt, "sha256": json_digest(receipt)}))


def test_a_search_is_verified(search):
    out = succeed("verify", search).out
    best = pd.read_csv(search / "search.csv")["trial"][0]
    assert re.search(
        r"verified .* bit for bit: the decisions on all 10 trials follow from their scores, and trial", out
    )
    assert f"{best}, the best, has the same scores and the same network when it is trained again" in out
    assert_mistake(nnjax("verify", search, "--plot", "x.png"), "--plot applies only to a run")


def test_changed_files_are_named(search, tmp_path):
    path = shutil.copytree(search, tmp_path / "run")
    with (path / "search.csv").open("a") as file:
        file.write("\n")
    (path / "report.html").unlink()
    ended = nnjax("verify", path)
    assert ended.code == 1
    assert "search.csv has changed since the search: it does not match its SHA-256" in ended.out
    assert "report.html cannot be read: No such file" in ended.out
    assert_mistake(nnjax("replay", path), ".*search.csv has changed since the search")
    (path / "receipt.json").write_text("{}")
    assert_mistake(nnjax("verify", path), ".*receipt.json is damaged")
    (path / "receipt.json").unlink()
    assert_mistake(nnjax("verify", path), ".*is not finished, .* continue with: nnjax search --resume")


def test_a_trial_that_does_not_follow_from_the_scores_is_named(search, tmp_path):
    path = shutil.copytree(search, tmp_path / "run")

    def change(table):
        table.loc[table["trial"] == "7", "learning_rate"] = "0.05"

    edit(path, change)
    ended = nnjax("verify", path)
    assert ended.code == 1
    assert re.search(
        r"learning_rate of trial 7 is 0.05, but \S+ follows from the scores of the earlier trials", ended.out
    )


def test_a_score_that_training_does_not_give_is_named(search, tmp_path):
    path = shutil.copytree(search, tmp_path / "run")

    def change(table):
        table.loc[0, "score_2"] = "0.0001"

    edit(path, change)
    ended = nnjax("verify", path)
    assert ended.code == 1
    assert re.search(r"score_2 of trial \d+: 0.0001 in search.csv, \S+ now", ended.out)


def test_elsewhere_a_tolerance_is_promised(search, tmp_path):
    path = shutil.copytree(search, tmp_path / "run")
    receipt = read_json(path / "receipt.json")
    del receipt["sha256"]
    receipt["bits_depend_on"] |= {"jaxlib": "0.0.1", "mesh": "members 64"}
    (path / "receipt.json").write_text(json.dumps({**receipt, "sha256": json_digest(receipt)}))
    out = succeed("verify", path).out
    assert "bitwise equal scores cannot be expected, because this machine or its libraries differ" in out
    assert re.search(r"mesh +members 64 ", out)
    assert "within tolerance: the decisions" in out
    assert "the same scores to 0.1 (relative)" in out


def test_a_trial_is_replayed(search):
    table = pd.read_csv(search / "search.csv").set_index("trial")
    last = table.index[-1]
    out = succeed("replay", search, "--trial", last).out
    assert f"trial {last}, stopped: learning rate {table['learning_rate'][last]:.4g}, width" in out
    assert f"score after 1 epoch: {table['score_1'][last]:.6g}" in out
    assert f"trained again, trial {last} has the same scores" in out
    assert f"trial {table.index[0]}, finished" in succeed("replay", search).out
    assert_mistake(nnjax("replay", search, "--trial", 10), "--trial 10: the search has the trials 0 to 9")
    assert_mistake(nnjax("replay", search, "--step", 1), "--step applies only to a run; use --trial for a search")


@pytest.mark.filterwarnings("ignore:search. all trials diverged")
def test_a_diverged_trial_names_its_origin(tmp_path):
    given = ("--learning-rate", "1e37..1e38:log", "--width", "4", "--norm", "none", "--optimizer", "sgd")
    path = tmp_path / "run"
    ended = nnjax("search", "digits", *given, "--trials", "2", "--population", "2", "--rungs", "1", "--out", path)
    assert ended.code == 1, ended
    assert "all trials diverged" in ended.out
    assert_mistake(
        nnjax("replay", path), "there is no best trial, because all trials diverged; choose one with --trial"
    )
    ended = nnjax("replay", path, "--trial", "1")
    assert ended.code == 1
    assert re.search(r"trial 1, diverged: learning rate \S+\nstep \d+: (layer|the update|the loss)", ended.out)
    assert "; all trials diverged" in succeed("verify", path).out
    assert "all trials of a search diverged" in (path / "report.html").read_text()


def test_plan(search, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = succeed("search", *GIVEN, "--method", "random", "--plan").out
    steps = 10 * 2 * 1294 // 32 + 10  # the last batch of an epoch is part of the next one
    (counted,) = re.findall(r"trials +10, \d+ decisions, (\d+) steps of a network", out)
    assert abs(int(counted) - steps) <= 10
    assert re.search(r"programs +1\n", out)
    assert re.search(r"members +4 all at the same time", out)
    assert re.search(r"training +about .* with strategy map, plus compilation and validation", out)
    assert not list(tmp_path.iterdir())
    two = succeed("search", *GIVEN, "--activation", "relu,tanh", "--plan").out
    assert re.search(r"programs +2, one for each combination of the lists", two)
