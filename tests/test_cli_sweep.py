"""`nnjax sweep`: what values mean, that rows are what lone runs give, and that the ranking is right."""

import re
import shlex
import shutil

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import assert_mistake, nnjax, read_json, succeed, with_warnings
from sklearn.datasets import load_diabetes

from nnjax import train
from nnjax.cli import run_folder
from nnjax.cli.hyperparameters import Values, combine, parse_values
from nnjax.train.engine import fingerprint

SMALL = ("--width", "8", "--depth", "1", "--epochs", "2", "--batch-size", "32", "--norm", "none")


# Values


@pytest.mark.parametrize(
    ("text", "numbers", "spacing"),
    [
        ("0.1", [0.1], None),
        ("0.3, 0.1,0.3", [0.3, 0.1], None),
        ("1e-4..1e-1:log:4", [1e-4, 1e-3, 1e-2, 1e-1], "log"),
        ("0..0.6:lin:4", [0, 0.2, 0.4, 0.6], "lin"),
        ("0..0.6:lin", [0, 0.6], "lin"),
        ("1..2", [1, 2], "lin"),
        ("1..9:int:3", [1, 5, 9], "int"),
        ("1..3:int:9", [1, 2, 3], "int"),
    ],
)
def test_values_are_numbers_lists_and_ranges(text, numbers, spacing):
    values = parse_values("dropout", text)
    np.testing.assert_allclose(values.numbers, numbers)
    assert values.spacing == spacing
    assert values.constant == (len(numbers) == 1)
    assert (values.low, values.high) == pytest.approx((min(numbers), max(numbers)))


def test_widths_are_whole_numbers():
    assert parse_values("width", "16..256:log:5").numbers == [16, 32, 64, 128, 256]
    assert parse_values("width", "8..9").spacing == "int"
    assert all(
        isinstance(number, int)
        for text in ("3..30:log:4", "8,16", "8")
        for number in parse_values("width", text).numbers
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dropout", "", "--dropout : expected a number, a list a,b,c, or a range"),
        ("dropout", "a,b", "--dropout a,b: expected"),
        ("dropout", "1..2:exp:3", "expected a number"),
        ("dropout", "1..2:log:x", "expected a number"),
        ("dropout", "1..", "expected a number"),
        ("learning_rate", "nan", "--learning-rate nan: the numbers must be finite"),
        ("learning_rate", "0..1:log:3", "expected 0 < low < high"),
        ("learning_rate", "2..1", "expected low < high"),
        ("learning_rate", "1..2:lin:1", "a range needs a count of at least 2"),
        ("width", "8,8.5", "the numbers must be integers"),
        ("dropout", "0.1..0.5:int:2", "the numbers must be integers"),
    ],
)
def test_texts_that_are_not_values_are_refused(name, text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_values(name, text)


def test_a_grid_is_every_combination():
    grid = combine({"learning_rate": parse_values("", "1,2"), "width": parse_values("width", "4,8,16")}, None, 0)
    assert list(zip(grid["learning_rate"].tolist(), grid["width"].tolist(), strict=True)) == [
        (rate, width) for rate in (1, 2) for width in (4, 8, 16)
    ]
    assert np.issubdtype(grid["width"].dtype, np.integer)


@hypothesis.settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 50]))
def test_random_settings_are_drawn_from_lists_and_ranges(seed, n):
    values = {
        "learning_rate": parse_values("learning_rate", "1e-4..1e-1:log:3"),
        "width": parse_values("width", "4..64:log"),
        "dropout": parse_values("dropout", "0,0.25"),
        "weight_decay": Values("", [0.0, 0.1], "lin"),
    }
    drawn = combine(values, n, seed)
    assert {len(column) for column in drawn.values()} == {n}
    assert ((drawn["learning_rate"] >= 0.99e-4) & (drawn["learning_rate"] <= 0.101)).all()
    assert np.issubdtype(drawn["width"].dtype, np.integer)
    assert ((drawn["width"] >= 4) & (drawn["width"] <= 64)).all()
    assert set(drawn["dropout"]) <= {0, 0.25}
    assert ((drawn["weight_decay"] >= 0) & (drawn["weight_decay"] <= 0.1)).all()
    again = combine(values, n, seed)
    assert all((drawn[name] == again[name]).all() for name in drawn)


def test_random_settings_cover_the_logarithm():
    rates = combine({"learning_rate": parse_values("", "1e-4..1:log")}, 400, 0)["learning_rate"]
    assert 0.4 < np.mean(rates < 1e-2) < 0.6
    assert len(set(rates)) == 400


# Sweeps


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep") / "run"
    return path, succeed(
        "sweep", "digits", "--learning-rate", "1e-3..0.1:log:4", "--dropout", "0,0.4", "--out", path, *SMALL
    )


def test_a_sweep_writes_its_table_and_a_picture_for_the_pair(sweep):
    path, ended = sweep
    assert sorted(file.name for file in path.iterdir()) == [
        "checkpoints", "learning_rate-dropout.png", "report.html", "sweep.csv", "sweep.json",
    ]  # fmt: skip
    table = pd.read_csv(path / "sweep.csv")
    assert len(table) == 8
    assert sorted(set(table["dropout"])) == [0, 0.4]
    np.testing.assert_allclose(sorted(set(table["learning_rate"])), np.geomspace(1e-3, 0.1, 4))
    assert table["validation_loss"].is_monotonic_increasing
    assert "test" not in " ".join(table)
    assert "8 settings of --learning-rate, --dropout, strategy map" in ended.out
    best = table.iloc[0]
    assert re.search(f"{best['learning_rate']:.4g} .* {best['validation_loss']:.4f} .* ", ended.out)
    assert f"written to {path} after" in ended.out


def test_the_command_it_ends_with_trains_to_the_same_validation_loss(sweep, tmp_path):
    path, ended = sweep
    (command,) = re.findall("best setting with: (nnjax .*)", ended.out)
    words = shlex.split(command)
    assert words[:3] == ["nnjax", "train", "digits"]
    succeed(*words[1:], "--out", tmp_path / "run", "--no-plots")
    row = pd.read_csv(path / "sweep.csv").iloc[0]
    history = pd.read_csv(tmp_path / "run" / "metrics.csv")
    for name in ("loss", "validation_loss", "validation_accuracy"):
        assert history[name].iloc[-1] == pytest.approx(row[name], rel=1e-3)
    config = read_json(tmp_path / "run" / "config.json")
    assert (config["dropout"], config["width"], config["norm"]) == (row["dropout"], 8, "none")


def test_seeds_are_the_members_of_the_command_it_ends_with(tmp_path):
    swept = ("--learning-rate", "1e-3,1e-2", "--dropout", "0,0.4", "--seeds", 2)  # the program of the fixture
    given = (*swept, "--patience", 1, "--seed", 3, "--no-plots", *SMALL)
    ended = succeed("sweep", "digits", "--out", tmp_path / "sweep", *given)
    assert re.search(r" 0.01 │ +0 │ +[\d.]+ ± [\d.]+ │ +[\d.]+ ± [\d.]+ ", ended.out)
    assert "4 settings of --learning-rate, --dropout × 2 seeds" in ended.out
    row = pd.read_csv(tmp_path / "sweep" / "sweep.csv").iloc[0]
    assert row["best_validation_loss"] <= row["validation_loss"]
    command = shlex.split(re.findall("best setting with: (nnjax .*)", ended.out)[0])
    succeed(*command[1:], "--out", tmp_path / "run", "--no-plots")
    config = read_json(tmp_path / "run" / "config.json")
    assert (config["members"], config["patience"], config["seed"]) == (2, 1, 3)
    history = pd.read_csv(tmp_path / "run" / "metrics.csv")
    best = history.groupby("member")["validation_loss"].min()
    assert row["best_validation_loss"] == pytest.approx(best.mean(), rel=1e-3)
    assert row["best_validation_loss_sd"] == pytest.approx(best.std(), rel=1e-2)


def test_widths_label_smoothing_and_a_schedule_are_swept_and_ranked_by_nll(tmp_path):
    ended = succeed(
        "sweep", "digits", "--out", tmp_path / "run", *SMALL, "--width", "2,32", "--label-smoothing", "0,0.5",
        "--learning-rate", 0.01, "--schedule", "warmup-cosine", "--norm", "layer",
    )  # fmt: skip
    table = pd.read_csv(tmp_path / "run" / "sweep.csv")
    assert table["validation_nll"].is_monotonic_increasing
    assert table["width"].tolist()[:2] == [32, 32]
    plain = table[table["label_smoothing"] == 0]
    np.testing.assert_allclose(plain["validation_nll"], plain["validation_loss"], rtol=1e-5)
    smooth = table[table["label_smoothing"] == 0.5]
    assert (np.abs(smooth["validation_nll"] - smooth["validation_loss"]) > 1e-4).all()
    assert (tmp_path / "run" / "width-label_smoothing.png").exists()
    assert "validation nll" in ended.out


def test_random_settings_of_a_regression_and_one_picture_for_one_hyper_parameter(tmp_path):
    frame = load_diabetes(as_frame=True, scaled=False).frame
    frame.to_csv(tmp_path / "d.csv", index=False)
    given = ("--weight-decay", "1e-4..1:log", "--random", 12, "--learning-rate", 0.03, *SMALL)
    ended = succeed("sweep", tmp_path / "d.csv", "--target", "target", "--out", tmp_path / "run", *given)
    table = pd.read_csv(tmp_path / "run" / "sweep.csv")
    assert len(table) == 12
    assert table["weight_decay"].nunique() == 12
    std = frame["target"].std()
    np.testing.assert_allclose(table["validation_rmse"], std * np.sqrt(table["validation_loss"]), rtol=0.1)
    assert (tmp_path / "run" / "weight_decay.png").exists()
    assert "the best 10 of 12; all are in sweep.csv" in ended.out
    assert "validation R²" in ended.out
    assert re.search(r"^epoch 2/2  mean of 12 networks: loss \S+  validation R² ", ended.err, re.MULTILINE)


def test_a_sweep_whose_settings_all_diverge_says_so(tmp_path):
    rates = ("--learning-rate", "1e30..1e31:log:4", "--dropout", "0,0.4")  # the program of the fixture
    ended = with_warnings("sweep", "digits", *rates, "--out", tmp_path / "run", *SMALL)
    assert ended.code == 0, ended
    assert re.search(
        r"warning network 1 diverged: the loss of step \d+ is \S+\. A smaller --learning-rate or --clip 1 may help\n",
        ended.err,
    )
    assert "all settings diverged" in ended.out
    assert "best setting" not in ended.out


def test_settings_are_ranked_with_those_that_diverged_last(tmp_path, monkeypatch):
    rows = [
        {"dropout": 0.1, "validation_loss": 0.5, "diverged": 0},
        {"dropout": 0.2, "validation_loss": 0.1, "diverged": 1},
        {"dropout": 0.3, "validation_loss": float("nan"), "diverged": 0},
        {"dropout": 0.4, "validation_loss": 0.3, "diverged": 0},
    ]
    monkeypatch.setattr(train, "sweep", lambda *_, **__: train.Sweep(rows, None))
    ended = succeed("sweep", "digits", "--dropout", "0.1,0.2,0.3,0.4", "--out", tmp_path / "run", *SMALL)
    assert pd.read_csv(tmp_path / "run" / "sweep.csv")["dropout"].tolist() == [0.4, 0.1, 0.3, 0.2]
    assert "--dropout 0.4" in ended.out


# Mistakes and interruptions

MISTAKES = {
    (): "no setting has several values; pass a list or a range, as in --learning-rate",
    ("--dropout", "0,1.5"): r"dropout: rate must be in \[0, 1\), got 1.5",
    ("--dropout", "0..0.5"): "--dropout 0..0.5 has no count; write 0..0.5:lin:8, or use --random",
    ("--learning-rate", "-1,1"): r"--learning-rate: learning rate must be in \[0, inf\), got -1",
    ("--learning-rate", "1,2", "--optimizer", "adem"): r"did you mean 'adam'",
    ("--width", "0,8"): "--width: width must be ≥ 1, got 0",
    ("--width", "4,8", "--skip"): "--width cannot be swept with --skip; give one number",
    ("--width", "4,8", "--depth", "0"): "--width cannot be swept with --depth 0; give one number",
    ("--weight-decay", "0,1", "--optimizer", "sgd"): "--weight-decay applies only to adamw and lion, not to sgd",
    ("--label-smoothing", "0,1"): r"--label-smoothing: share must be in \[0, 1\), got 1",
    (
        "--label-smoothing",
        "0,0.1",
        "--patience",
        "2",
    ): "--patience cannot compare losses with different --label-smoothing",
    ("--dropout", "0,0.1", "--validation", "0"): "--validation and --epochs must be > 0",
    ("--dropout", "0,0.1", "--epochs", "0"): "--validation and --epochs must be > 0",
    ("--dropout", "0,0.1", "--seeds", "0"): "--seeds must be ≥ 1, got 0",
    ("--dropout", "0,0.1", "--random", "0"): "--random must be ≥ 1, got 0",
    ("--dropout", "0,0.1", "--group", "0"): "--group: group must be ≥ 1, got 0",
    ("--dropout", "0,0.1", "--anyway"): "--anyway applies only with --resume",
    ("--dropout", "0,0.1", "--data-dir", "x"): "--data-dir applies only to fashion-mnist, not to nowhere.csv",
}


@pytest.mark.parametrize(("given", "message"), MISTAKES.items(), ids=map(" ".join, MISTAKES))
def test_mistakes_are_said_before_anything_is_read(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    assert_mistake(nnjax("sweep", "nowhere.csv", "--target", "y", *given), message)
    assert not list(tmp_path.iterdir())


def test_a_killed_sweep_is_resumed_to_the_same_table(sweep, tmp_path):
    path, _ = sweep
    command = ("sweep", "digits", "--learning-rate", "1e-3..0.1:log:4", "--dropout", "0,0.4", *SMALL)
    shutil.copytree(path, tmp_path / "run")
    (tmp_path / "run" / "sweep.csv").unlink()
    assert_mistake(
        nnjax(*command, "--out", tmp_path / "run"), "an unfinished sweep; continue with: nnjax sweep --resume"
    )
    assert_mistake(
        nnjax("train", "--resume", tmp_path / "run"), "holds no run: .*; it holds an unfinished sweep; continue with"
    )
    ended = nnjax("sweep", "--resume", tmp_path / "run", "--dropout", "0,0.5")
    assert ended.code == 2
    assert [line.split() for line in ended.err.splitlines()[1:3]] == [["saved", "now"], ["--dropout", "0,0.4", "0,0.5"]]
    succeed("sweep", "--resume", tmp_path / "run", "--dropout", "0,0.4")
    assert (tmp_path / "run" / "sweep.csv").read_bytes() == (path / "sweep.csv").read_bytes()
    assert_mistake(nnjax("sweep", "--resume", tmp_path / "run"), "is finished; there is nothing to resume")


def test_a_sweep_that_is_resumed_anyway_records_it(sweep, tmp_path, monkeypatch):
    path = shutil.copytree(sweep[0], tmp_path / "run")
    (path / "sweep.csv").unlink()
    asked, now = read_json(path / "sweep.json"), fingerprint.machine_fingerprint()
    monkeypatch.setattr(fingerprint, "machine_fingerprint", lambda: now | {"jaxlib": "9.9"})
    ended = nnjax("sweep", "--resume", path)
    assert ended.code == 2
    assert read_json(path / "sweep.json") == asked
    succeed("sweep", "--resume", path, "--anyway", "--no-plots")
    assert read_json(path / "sweep.json") == asked | {"resumed_anyway": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": "x"}, "sweep.json is damaged: seeds must be an integer, got 'x'"),
        ({"dept": 2}, "sweep.json is damaged: settings: unknown name 'dept'"),
        ({"width": 256}, "sweep.json is damaged: width must be text or null, got 256"),
        ({"dropout": "a,b"}, "--dropout a,b: expected a number"),
    ],
)
def test_a_damaged_sweep_is_said(sweep, tmp_path, change, message):
    settings = {k: v for k, v in read_json(sweep[0] / "sweep.json").items() if k not in run_folder.NOTES}
    run_folder.save_sweep(tmp_path, settings | change, {})
    assert_mistake(nnjax("sweep", "--resume", tmp_path), f".*{message}")


def test_ctrl_c_says_the_command_that_goes_on(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "sweep", stop)
    ended = nnjax("sweep", "digits", "--dropout", "0,0.1", "--out", tmp_path / "run", *SMALL)
    assert ended.code == 130
    assert ended.err == f"stopped; continue with: nnjax sweep --resume {tmp_path / 'run'}\n"
