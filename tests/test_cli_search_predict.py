"""`nnjax search --folds`, and `nnjax predict` with the networks of a search."""

import re
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
from runs import assert_mistake, nnjax, read_json, succeed
from sklearn.datasets import load_wine

from nnjax import data

pytestmark = pytest.mark.filterwarnings("ignore:search. trial .* is within noise")
SPACE = ("--learning-rate", "1e-2..0.1:log", "--width", "2..4", "--activation", "relu,tanh")
SMALL = ("--depth", "1", "--norm", "none", "--rungs", "1,3", "--population", "2", "--trials", "6", "--folds", "3")


@pytest.fixture(scope="module")
def wine(tmp_path_factory):
    """Return the file, the rows that the search has not seen, and the folder of a search with folds."""
    folder = tmp_path_factory.mktemp("search")
    frame = load_wine(as_frame=True).frame
    frame["target"] = frame["target"].map({0: "x", 1: "y", 2: "z"})
    frame.to_csv(folder / "wine.csv", index=False)
    used = data.load(str(folder / "wine.csv"), target="target").lines - 2
    test = frame.drop(index=used)
    test.to_csv(folder / "test.csv", index=False)
    given = ("-t", "target", *SPACE, *SMALL, "--out", folder / "run", "--no-plots")
    (folder / "out.txt").write_text(succeed("search", folder / "wine.csv", *given).out)
    return folder / "wine.csv", test, folder / "run"


def test_predictions_have_the_scores_of_the_search(wine, tmp_path):
    file, test, run = wine
    result = read_json(run / "result.json")
    assert len(test) == 36
    for option, scores in ((), result["test"]), (("--ensemble",), result["ensemble_test"]):
        out = succeed("predict", run, file.with_name("test.csv"), "--out", tmp_path / "p.csv", *option).out
        table = pd.read_csv(tmp_path / "p.csv")
        probability = [table[f"p({label})"][i] for i, label in enumerate(test["target"])]
        assert -np.log(probability).mean() == pytest.approx(scores["loss"], rel=1e-5)
        assert f"on the 36 rows with target: accuracy {scores['accuracy']:.4f}" in out
        assert table["epistemic"].max() > 0  # three networks, or more, are averaged


def test_predict_refuses_changed_files_and_unfinished_searches(wine, tmp_path):
    file, _, run = wine
    run = shutil.copytree(run, tmp_path / "run")
    assert_mistake(nnjax("predict", run, file, "--out", run / "search.csv"), "--out .* would overwrite")
    (run / "report.html").unlink()  # predictions do not depend on it
    assert "178 predictions written" in succeed("predict", run, file).out
    shutil.copy(run / "table.json", run / "weights.safetensors")
    assert_mistake(nnjax("predict", run, file), ".*weights.safetensors has changed since the search")
    (run / "receipt.json").unlink()
    assert_mistake(nnjax("predict", run, file), ".*is not finished.* continue with: nnjax search --resume")


def test_the_score_of_a_trial_is_the_mean_over_its_folds(wine):
    _, _, run = wine
    table = pd.read_csv(run / "search.csv")
    np.testing.assert_allclose(table["validation_loss"], table["score"], rtol=1e-6)
    assert (table["validation_loss_sd"] > 0).all()
    best, printed = table.iloc[0], (run.parent / "out.txt").read_text()
    assert f"{best['score']:.4f} ± {best['validation_loss_sd']:.3f}" in printed  # fewer digits in a narrow terminal
    result = read_json(run / "result.json")
    assert "142 training (in 3 folds), 36 test" in result["data"]
    assert result["advantage"]["n"] == 3
    assert any(
        "each trial trained 3 networks" in note and "one network on all rows but" in note for note in result["notes"]
    )


def test_the_command_after_folds_trains_on_all_rows_but_the_test_rows(wine, tmp_path):
    result = read_json(wine[2] / "result.json")
    assert f"--epochs {result['epochs']:g}" in result["command"]
    out = succeed(*shlex.split(result["command"])[1:], "--out", tmp_path / "run", "--no-plots").out
    assert "142 rows for training, 0 for validation, 36 for the test" in out


def test_a_search_with_folds_is_verified_replayed_and_resumed(wine, tmp_path):
    file, _, run = wine
    assert re.search("verified .* bit for bit: the decisions on all 6 trials follow", succeed("verify", run).out)
    table = pd.read_csv(run / "search.csv").set_index("trial")
    last = table.index[-1]
    assert f"score after 1 epoch: {table['score_1'][last]:.6g}" in succeed("replay", run, "--trial", last).out
    copy = shutil.copytree(run, tmp_path / "run")
    for name in ("search.csv", "receipt.json", "result.json"):
        (copy / name).unlink()
    succeed("search", "--resume", copy, "--no-plots")
    assert (copy / "search.csv").read_bytes() == (run / "search.csv").read_bytes()
    planned = succeed("search", file, "-t", "target", *SPACE, *SMALL, "--plan").out
    assert re.search(r"trials +6 × 3 folds, \d+ decisions", planned)
    assert re.search(r"members +6 all at the same time", planned)


MISTAKES = {
    ("--folds", "143"): "--folds 143: must be in 2 … 142, the number of rows without the test rows",
    ("--folds", "1"): "--folds must be ≥ 2, got 1",
    ("--folds", "3", "--seeds", "2"): "--seeds applies only without --folds, because each fold has its own seed",
    ("--folds", "3", "--validation", "0.2"): "--validation applies only without --folds",
}


def test_a_class_of_one_row_is_noted(wine, tmp_path):
    frame = pd.read_csv(wine[0])
    frame.loc[0, "target"] = "once"
    frame.to_csv(tmp_path / "wine.csv", index=False)
    out = succeed("search", tmp_path / "wine.csv", "-t", "target", *SPACE, *SMALL, "--plan").out
    assert "no test row has these classes, so their recall is unknown: 'once' (1 row)" in out
    assert "note classes with a single row outside of the test rows: 'once'; the fold that holds it out" in out


@pytest.mark.parametrize(("given", "message"), MISTAKES.items(), ids=map(" ".join, MISTAKES))
def test_mistakes_with_folds(wine, given, message):
    assert_mistake(nnjax("search", wine[0], "-t", "target", *SPACE, *given), message)


def test_a_folder_of_a_search_is_named(wine, tmp_path):
    assert_mistake(nnjax("train", "--resume", wine[2]), "holds no run: .* is missing; it holds a finished search")
    path = shutil.copytree(wine[2], tmp_path / "run")
    (path / "receipt.json").unlink()
    assert_mistake(nnjax("train", "--resume", path), ".* an unfinished search; continue with: nnjax search --resume")


def test_ensemble_applies_only_to_a_search(tmp_path):
    assert_mistake(nnjax("predict", tmp_path, "x.csv", "--ensemble"), "--ensemble applies only to a search")
