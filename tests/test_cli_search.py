"""`nnjax search`: what it writes, the command it ends with, resuming, and mistakes."""

import io
import re
import shlex
import shutil
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from runs import assert_mistake, nnjax, read_json, succeed, with_warnings
from sklearn.datasets import load_diabetes

from nnjax import train
from nnjax.cli import run_folder
from nnjax.cli.config import Config
from nnjax.cli.leaders import leaders_table
from nnjax.cli.search_program import prepare_search
from nnjax.cli.search_result import edges

SMALL = (
    "--width",
    "4,8,16",
    "--depth",
    "1",
    "--batch-size",
    "32",
    "--norm",
    "none",
    "--rungs",
    "1,2",
    "--population",
    "4",
)
GIVEN = ("search", "digits", "--learning-rate", "1e-3..0.1:log", "--dropout", "0..0.4", "--trials", "10", *SMALL)


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    path = tmp_path_factory.mktemp("search") / "run"
    return path, succeed(*GIVEN, "--out", path)


def test_a_search_writes_all_trials_best_first(search):
    path, ended = search
    written = ["importance.png", "parallel.png", "progress.png", "receipt.json", "report.html", "result.json"]
    written += ["search.csv", "search.json", "search.png", "table.json", "weights.safetensors"]
    assert sorted(file.name for file in path.iterdir()) == ["checkpoints", *written]
    table = pd.read_csv(path / "search.csv")
    assert sorted(table["trial"]) == list(range(10))
    assert set(table["status"]) == {"stopped", "finished"}
    assert table["score"].is_monotonic_increasing
    assert (table[table["status"] == "finished"]["epochs"] == 2).all()
    assert "359 for the test" in ended.out
    assert "the test rows are used only at the end" in ended.out
    best = table.iloc[0]
    assert re.search(f"{best['learning_rate']:.4g} .* {best['score']:.4f} ", ended.out)
    assert "10 of 10 trials have ended  best score" in ended.err
    assert "all 10 trials, also in search.csv" in ended.out
    assert "test scores of the best setting: loss " in ended.out
    trials = read_json(path / "result.json")["ensemble"]
    alone = f"the ensemble is trial {best['trial']} alone" in ended.out
    assert alone == (set(trials) == {best["trial"]})
    assert alone or "test scores of the ensemble of 5 (" in ended.out


def test_the_command_it_ends_with_trains_to_the_same_scores(search, tmp_path):
    path, ended = search
    (command,) = re.findall("best setting again with: (nnjax .*)", ended.out)
    trained = succeed(*shlex.split(command)[1:], "--out", tmp_path / "run", "--no-plots")
    row = pd.read_csv(path / "search.csv").iloc[0]
    history = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert history["validation_loss"].tolist() == pytest.approx([row["score_1"], row["score_2"]], rel=1e-3)
    assert history["validation_accuracy"].iloc[-1] == pytest.approx(row["validation_accuracy"], abs=0.01)
    (loss,) = re.findall(r"test scores of the best setting: loss ([\d.]+)", ended.out)
    assert read_json(tmp_path / "run" / "result.json")["test"]["loss"] == pytest.approx(float(loss), rel=1e-2), trained


def test_a_search_is_resumed_to_the_same_table(search, tmp_path):
    path = shutil.copytree(search[0], tmp_path / "run")
    for name in ("search.csv", "receipt.json", "result.json"):
        (path / name).unlink()
    assert_mistake(nnjax(*GIVEN, "--out", path), "an unfinished search; continue with: nnjax search --resume")
    ended = nnjax("search", "--resume", path, "--trials", "11")
    assert ended.code == 2
    assert [line.split() for line in ended.err.splitlines()[1:3]] == [["saved", "now"], ["--trials", "10", "11"]]
    succeed("search", "--resume", path)
    assert (path / "search.csv").read_bytes() == (search[0] / "search.csv").read_bytes()
    again, first = (read_json(folder / "receipt.json") for folder in (path, search[0]))
    assert (again["weights"], again["data"]) == (first["weights"], first["data"])
    assert_mistake(nnjax("search", "--resume", path), "is finished; there is nothing to resume")


def test_structures_of_a_regression(tmp_path):
    frame = load_diabetes(as_frame=True, scaled=False).frame
    frame.to_csv(tmp_path / "d.csv", index=False)
    given = ("--learning-rate", "1e-3..0.1:log", *SMALL, "--activation", "relu,tanh", "--trials", "8")
    ended = succeed("search", tmp_path / "d.csv", "--target", "target", *given, "--out", tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "search.csv")
    assert set(table["activation"]) == {"relu", "tanh"}
    assert len(table) == 8
    np.testing.assert_allclose(table["validation_rmse"], frame["target"].std() * np.sqrt(table["score"]), rtol=0.1)
    assert re.search("best setting again with: nnjax train .*d.csv --target target", ended.out)


def test_pictures_and_report_are_drawn_again(search, tmp_path):
    path = shutil.copytree(search[0], tmp_path / "run")
    names = [f"{name}.png" for name in ("search", "progress", "importance", "parallel")]
    before = {name: (path / name).read_bytes() for name in names}
    report = (path / "report.html").read_bytes()
    for name in (*names, "report.html"):
        (path / name).unlink()
    assert f"{', '.join(names)}, report.html written to" in succeed("plot", path).out
    assert {name: (path / name).read_bytes() for name in names} == before
    folder, moved = (str(place).encode() for place in (search[0], path))
    assert (path / "report.html").read_bytes() == report.replace(folder, moved)
    with (path / "search.csv").open("a") as file:
        file.write("1\n")
    assert_mistake(nnjax("plot", path), ".*search.csv has changed since the search")
    (path / "receipt.json").unlink()
    assert_mistake(nnjax("plot", path), ".*not finished, receipt.json is missing; continue with: nnjax search --resume")


def test_the_report_has_scores_with_baseline_trials_and_commands(search):
    path, ended = search
    page = (path / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 4
    assert not re.search(r'(?:src|href)="(?!data:)', page)  # needs no other file
    result = read_json(path / "result.json")
    (row,) = re.findall("<tr[^>]*><td[^>]*>accuracy</td>(.*?)</tr>", page)
    cells = re.findall(">([^<>]+)</td>", row)
    expected = [result[name]["accuracy"] for name in ("test", "ensemble_test", "baseline")]
    assert [float(cell) for cell in cells] == pytest.approx(expected, abs=1e-4)
    assert result["baseline"]["accuracy"] < 0.2 < result["test"]["accuracy"]
    assert f"accuracy {result['test']['accuracy']:.4f}" in ended.out
    assert page.count(">stopped<") + page.count(">finished<") == 10
    (command,) = re.findall("best setting again with: (nnjax .*)", ended.out)
    words = re.sub("<[^>]*>", "", page)
    for text in (
        command,
        "1\N{NO-BREAK SPACE}hidden\N{NO-BREAK SPACE}layer",
        "--learning-rate",
        "1e-3..0.1:log",
        f"nnjax verify {path}",
        f"nnjax predict {path}",
        "0..0.4",
    ):
        assert text in words


def test_a_value_at_the_end_of_its_range_is_noted():
    space = {"learning_rate": train.log_uniform(1e-3, 0.1), "dropout": train.uniform(0, 0.5)}
    (note,) = edges({"learning_rate": 0.099, "dropout": 0.001}, space)
    assert note == "the best learning rate, 0.099, is near the upper end of its range 0.001..0.1; extend it"
    assert not list(edges({"learning_rate": 0.05, "dropout": 0.2}, space))


@pytest.mark.parametrize(("trials", "most"), [(7, "search at least 8"), (8, None)])
def test_importance_needs_enough_trials(noise, tmp_path, trials, most):
    given = ("--learning-rate", "0.02..0.05", "--rungs", "1,2", "--trials", trials, "--width", "64")
    ended = succeed("search", noise, "-t", "y", *given, "--out", tmp_path / "run")
    assert (tmp_path / "run" / "importance.png").exists() == (most is None)
    assert ("too few to estimate how important the searched settings are" in ended.out) == (most is not None)
    assert (most or "") in ended.out
    correlation = re.search(r"scores with those after 2 epochs: \S+ after 1 epoch \((\d) trials\)", ended.out)
    table = pd.read_csv(tmp_path / "run" / "search.csv")
    assert (int(correlation[1]) if correlation else 2) == max(2, table["score_2"].notna().sum())


def test_a_wide_range_without_log_is_noted(tmp_path):
    given = ("search", "digits", "--dropout", "0..0.5", "--weight-decay", "1e-4..1e-1:log", "--rungs", "0.01,0.02")
    assert "append :log" not in nnjax(*given).out
    out = nnjax(*given, "--learning-rate", "1e-4..1e-1").out
    assert "--learning-rate 1e-4..1e-1: 90 % of the trials get values above 0.01; append :log" in out


def test_a_search_that_cannot_begin_leaves_no_folder(tmp_path):
    given = ("search", "digits", "--dropout", "0..0.5", "--out", tmp_path / "run")
    close = "--rungs 0.01,0.02: rungs must be at least a step apart, but end after 1, 1 steps; an epoch has 1,294 rows"
    assert_mistake(nnjax(*given, "--rungs", "0.01,0.02"), close)
    few = "--trials 5 are too few for the 4 combinations of the lists; pass at least 10"
    assert_mistake(nnjax(*given, "--trials", "5", "--depth", "1,2", "--activation", "relu,tanh"), few)
    assert not (tmp_path / "run").exists()


def test_a_copy_is_noted(tmp_path):
    given = ("--width", "16", "--trials", "12", "--method", "pbt", "--rungs", "1,2,3", "--keep-share", "0.4")
    rest = ("--learning-rate", "1e-6..0.1:log", "--population", "4", "--depth", "1", "--norm", "none")
    ended = succeed("search", "digits", *given, *rest, "--out", tmp_path / "run", "--no-plots")
    row = pd.read_csv(tmp_path / "run" / "search.csv").iloc[0]
    assert row["parent"] >= 0, "choose a seed whose best trial is a copy"
    assert f"trial {row['trial']} began as a copy of trial {row['parent']}, so its settings changed" in ended.out
    assert "nnjax predict FOLDER uses the trial's own network, and nnjax replay FOLDER trains it again" in ended.out


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Return a file of noise, on which the first epochs are the best."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("noise") / "noise.csv"
    frame = pd.DataFrame(rng.normal(size=(200, 4)), columns=list("abcd"))
    frame.assign(y=np.where(rng.random(200) < 0.5, "no", "yes")).to_csv(path, index=False)
    return path


OVERFIT = ("--learning-rate", "0.02..0.05", "--rungs", "2,30", "--trials", "3", "--keep-share", "1", "--no-plots")


@pytest.mark.parametrize(("schedule", "seeds"), [("constant", "2"), ("cosine", "1")])
@pytest.mark.filterwarnings("ignore:search. trial .* is within noise")
def test_the_command_repeats_a_network_of_an_earlier_rung(noise, tmp_path, schedule, seeds):
    """The command takes 2 of 30 epochs, with the learning rates that they have in the search."""
    given = ("search", noise, "-t", "y", *OVERFIT, "--schedule", schedule, "--width", "64", "--seeds", seeds)
    ended = succeed(*given, "--out", tmp_path / "run")
    (command,) = re.findall("best setting again with: (nnjax .*)", ended.out)
    assert ("--epochs 2" in command, "--schedule-epochs 30" in command) == (True, schedule == "cosine")
    assert re.search(r"3 of 3 trials have ended  best score \S+ after 2 epochs", ended.err)
    result = read_json(tmp_path / "run" / "result.json")
    assert (result["epochs"], [note for note in result["notes"] if "command" in note]) == (2, [])
    succeed(*shlex.split(command)[1:], "--out", tmp_path / "again", "--no-plots")
    again = read_json(tmp_path / "again" / "result.json")
    assert again["test"]["loss"] == pytest.approx(result["test"]["loss"], rel=1e-5)


def test_patience_stops_trials_and_is_verified(noise, tmp_path):
    given = ("--method", "random", "--rungs", "1,2,4,8,16", "--patience", "1", "--population", "2", "--trials", "4")
    succeed("search", noise, "-t", "y", *OVERFIT[:2], *given, "--width", "64", "--out", tmp_path / "run", "--no-plots")
    table = pd.read_csv(tmp_path / "run" / "search.csv")
    assert "stopped" in set(table["status"])
    for _, row in table[table["status"] == "stopped"].iterrows():
        scores = row[[name for name in table if re.fullmatch(r"score_\d+", name)]].dropna().astype(float)
        assert scores.iloc[-1] >= scores.iloc[-2]
    assert "bit for bit: the decisions on all 4 trials follow" in succeed("verify", tmp_path / "run").out


@pytest.mark.parametrize(("score", "spread"), [(0.31769, {}), (0.31769, {"validation_loss_sd": 0.0678})])
@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_a_narrow_terminal_shows_all_digits(score, spread, count):
    names = ["weight_decay", "learning_rate", "dropout", "width", "activation", "norm"][:count]
    row = {"trial": 123, "learning_rate": 0.00012345, "weight_decay": 0.00028542, "dropout": 0.02749, "width": 128}
    row |= {"activation": "leaky_relu", "norm": "layer", "epochs": 27.0, "score": score, "validation_r2": 0.5642}
    file = io.StringIO()
    console = Console(file=file, width=80)
    console.print(leaders_table(console, [row | spread], names, "the best 1 of 9", rows=1))
    assert "…" not in file.getvalue()
    values = ["123", "0.00028[0-9]+", "0.00012[0-9]+", r"0.0275|0.02749", "128", "leaky_relu", "layer"]
    assert re.search(r"[ │]+".join([*values[: count + 1], "27", "0.3177"]), file.getvalue())


def test_a_search_whose_trials_all_diverge(tmp_path):
    given = ("--learning-rate", "1e30..1e31", "--optimizer", "sgd", "--depth", "1", "--norm", "none", "--rungs", "1,2")
    ended = with_warnings("search", "digits", *given, "--trials", "2", "--out", tmp_path / "run", "--no-plots")
    assert ended.code == 1, ended
    assert "all trials diverged; search smaller learning rates, or add --clip 1" in ended.out
    assert "2 of 2 trials have ended  no trial has a finite score yet" in ended.err


def test_an_interrupted_search_names_no_step(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise train.InterruptedRun(8, tmp_path / "run" / "checkpoints")

    monkeypatch.setattr(train, "search", stop)
    ended = nnjax(*GIVEN, "--out", tmp_path / "run")
    assert (ended.code, ended.err) == (130, f"stopped; continue with: nnjax search --resume {tmp_path / 'run'}\n")


MISTAKES = {
    (): "no setting has several values; pass a list or a range, as in --learning-rate",
    ("--dropout", "0..1.5"): r"dropout: rate must be in \[0, 1\), got 1.5",
    ("--dropout", "0..0.5", "--trials", "0"): "--trials must be ≥ 1, got 0",
    ("--dropout", "0..0.5", "--keep-share", "0"): r"--keep-share must be in \(0, 1\], got 0",
    ("--dropout", "0..0.5", "--patience", "0"): "--patience must be ≥ 1, got 0",
    ("--dropout", "0..0.5", "--patience", "3"): "--patience 3 stops no trial: with 4 --rungs, it must be at most 2",
    ("--dropout", "0..0.5", "--rungs", "1,2", "--patience", "1"): ".* with 2 --rungs, it must be omitted",
    ("--dropout", "0...5"): "--dropout 0...5: a range has two dots",
    ("--learning-rate", "1..0.1:log"): "--learning-rate 1..0.1:log: expected low < high, got 1 and 0.1; swap them",
    ("--learning-rate", "0..0.1:log"): "--learning-rate 0..0.1:log: .* a small number such as 1e-6, or omit :log",
    ("--dropout", "0..0.5", "--rungs", "3,1"): "--rungs 3,1: .* positive and ascending",
    ("--dropout", "0..0.5", "--rungs", "x"): "--rungs x: expected numbers of epochs",
    ("--dropout", "0..0.5", "--rungs", ""): "--rungs : expected numbers of epochs",
    ("--dropout", "0..0.5", "--validation", "0"): "--validation must be > 0",
    ("--width", "4,8", "--depth", "0,1"): "--width cannot be searched with --depth 0",
    ("--depth", "1,a"): "--depth 1,a: expected an integer, or a list",
    ("--activation", "relu,tan"): "did you mean 'tanh'",
    ("--weight-decay", "0..1", "--optimizer", "sgd,adamw"): "--weight-decay applies only to adamw and lion",
    ("--dropout", "0,0.1", "--anyway"): "--anyway applies only with --resume",
}


@pytest.mark.parametrize(("given", "message"), MISTAKES.items(), ids=map(" ".join, MISTAKES))
def test_mistakes_are_named_before_anything_is_read(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    assert_mistake(nnjax("search", "nowhere.csv", "--target", "y", *given), message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"trials": "x"}, "trials must be an integer, got 'x'"), ({"depht": 2}, "unknown name 'depht'")],
)
def test_damaged_settings_are_named(search, tmp_path, change, message):
    settings = {k: v for k, v in read_json(search[0] / "search.json").items() if k not in run_folder.NOTES}
    run_folder.save_search(tmp_path, settings | change, {})
    assert_mistake(nnjax("search", "--resume", tmp_path), f".*search.json is damaged: .*{message}")


def test_settings_of_another_version_are_named(search, tmp_path):
    content = read_json(search[0] / "search.json")
    settings = {name: value for name, value in content.items() if name not in (*run_folder.NOTES, "folds")}
    run_folder.save_search(tmp_path, settings, {})
    for given in (("search", "--resume", tmp_path), ("predict", tmp_path, "x.csv")):
        assert_mistake(nnjax(*given), ".*search.json has no 'folds', so it was written by a different version of nnjax")


def test_settings_without_newer_ones_are_read(search, tmp_path):
    content = read_json(search[0] / "search.json")
    settings = {name: value for name, value in content.items() if name not in (*run_folder.NOTES, "schedule_epochs")}
    run_folder.save_search(tmp_path, settings, {})
    assert run_folder.load_search(tmp_path) == settings | {"schedule_epochs": None}


def test_small_regressions_get_longer_rungs_and_smaller_batches(tmp_path, capsys):
    pd.DataFrame({"x": np.sin(range(20, 40)), "y": np.sin(range(20))}).to_csv(tmp_path / "sine.csv", index=False)
    searched = {
        "learning_rate": "1e-3..0.1:log",
        "width": "8",
        "label_smoothing": "0",
        "depth": "1",
        "batch_size": "64",
    }
    own = {
        "trials": 4,
        "population": 2,
        "rungs": None,
        "method": "halving",
        "keep_share": None,
        "seeds": 1,
        "folds": None,
    }
    settings = asdict(Config(str(tmp_path / "sine.csv"), target="y")) | searched | own
    setup = prepare_search(settings, "map")
    assert "14 rows for training" in capsys.readouterr().out
    assert (setup.settings["rungs"], setup.request.rungs[-1]) == ("37,111,333,1000", 1000.0)
    assert (setup.request.config.epochs, setup.request.config.batch_size) == (1000.0, 14)
    assert prepare_search(settings | {"folds": 4}, "map").request.config.batch_size == 12
    assert prepare_search(settings | {"rungs": "1,2"}, "map").request.config.epochs == 2
