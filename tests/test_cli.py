"""The command line as its users meet it: what it writes, what it says, and that no mistake ends in a traceback."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
import typer
from runs import SMALL, assert_mistake, change_json, nnjax, process, read_json, succeed, with_warnings, write_wine
from sklearn.datasets import load_diabetes, load_digits

from nnjax import cli, data, train
from nnjax.cli import prepare
from nnjax.data import _idx as idx
from nnjax.data.table import Table
from nnjax.train.engine.distributed import ProcessLostError

pytestmark = [  # small tables have columns like that
    pytest.mark.filterwarnings("ignore:.*looks like a row number"),
    pytest.mark.filterwarnings("ignore:.*interquartile ranges"),
]


def stop(*_, **__):
    raise KeyboardInterrupt


def probabilities(predicted):
    return predicted[[name for name in predicted if name.startswith("p(")]].to_numpy()


def nll(predicted, classes, labels):
    """Negative log-likelihood, from what `predict` has written."""
    return -np.log(probabilities(predicted)[np.arange(len(labels)), [classes.index(label) for label in labels]]).mean()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of tables as people have them."""
    folder = tmp_path_factory.mktemp("files")
    write_wine(folder / "wine.csv")
    (folder / "data.txt").write_text("a,y\n1,2\n")
    diabetes = load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "progression [mg]"})
    diabetes.to_csv(folder / "diabetes.csv", index=False)
    images = load_digits()
    np.savez(folder / "digits.npz", x=images.images.astype(np.uint8), y=images.target)
    np.savez(folder / "images.npz", x=images.images[:400], y=images.target[:400] % 3)
    return folder


@pytest.fixture(scope="module")
def wine(files):
    """A run on a table with text labels."""
    path = files / "wine_run"
    ended = succeed("train", files / "wine.csv", "--target", "cultivar", "--out", path, *SMALL)
    return path, ended


@pytest.fixture(scope="module")
def diabetes(files):
    """A run of regression, with pictures."""
    path = files / "diabetes_run"
    small = [*SMALL, "--plots", "--learning-rate", "0.03"]
    ended = succeed("train", files / "diabetes.csv", "--target", "progression [mg]", "--out", path, *small)
    return path, ended


@pytest.fixture(scope="module")
def digits(files):
    """A run on the digits, in a process of its own, with pictures."""
    path = files / "digits_run"
    return path, process("train", "digits", "--out", path, *SMALL, "--plots", "--schedule", "cosine")


# What a run writes


def test_digits_write_all_files(digits):
    path, ended = digits
    assert ended.code == 0, ended
    assert sorted(file.name for file in path.iterdir()) == [
        "checkpoints",
        "config.json",
        "confusion.png",
        "curves.png",
        "first_layer.png",
        "metrics.csv",
        "mistakes.png",
        "receipt.json",
        "reliability.png",
        "report.html",
        "result.json",
        "table.json",
        "uncertain.png",
        "weights.safetensors",
    ]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in path.glob("*.png"))
    config, result, history = (
        read_json(path / "config.json"),
        read_json(path / "result.json"),
        pd.read_csv(path / "metrics.csv"),
    )
    assert (config["data"], config["width"], config["epochs"], config["seed"]) == ("digits", 8, 2, 0)
    assert set(config["versions"]) == {"nnjax", "jax", "jaxlib", "optax"}
    assert history["epoch"].tolist() == [1, 2]
    assert history["step"].tolist() == [81, 162]  # of 1 294 rows, 16 at a time
    assert result["steps"] == 162
    assert set(history) == {"epoch", "step", "loss"} | {f"validation_{name}" for name in result["test"]}
    assert set(result["test"]) == {"loss", "accuracy", "nll", "brier", "expected_calibration_error"}
    assert set(result["seconds"]) == {"compile", "train", "validate", "total"}
    assert history.notna().all(axis=None)
    assert history["loss"][1] < history["loss"][0] < np.log(10) * 1.3
    assert result["test"]["accuracy"] > 0.3  # by chance 0.1


def test_a_run_says_what_it_does(digits):
    path, ended = digits
    lines = ended.out.splitlines()
    assert re.match(r"nnjax \S+ on \d+ × .* jax .* optax .* Python", lines[0])
    assert lines[1].endswith("1,294 rows for training, 144 for validation, 359 for the test, 64 features")
    assert re.search(r"dense\(8\) .* 512 ", ended.out)
    assert re.search(r"mlp .* 618 ", ended.out)  # 64 · 8, 2 · 8 of the norm, 8 · 10 + 10
    accuracy = read_json(path / "result.json")["test"]["accuracy"]
    assert f"test accuracy {accuracy:.4f}" in ended.out
    assert "162 steps" in ended.out
    assert f"written to {path} after" in lines[-1]
    assert ended.err.splitlines()[-1].startswith("epoch 2/2  loss ")
    assert "validation accuracy" in ended.err


def test_no_plots_draws_none(wine):
    path, _ = wine
    assert not list(path.glob("*.png"))


def test_a_regression_draws_its_predictions(diabetes):
    path, _ = diabetes
    assert sorted(file.name for file in path.glob("*.png")) == [
        "curves.png",
        "importance.png",
        "predictions.png",
        "residuals.png",
    ]


def test_the_seed_and_nothing_else_decides_the_weights(files, wine, tmp_path, monkeypatch):
    path, _ = wine
    monkeypatch.chdir(tmp_path)
    succeed("train", files / "wine.csv", "--target", "cultivar", *SMALL)
    (again,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"wine-\d{8}-\d{6}", again.name)  # the default folder
    succeed("train", files / "wine.csv", "--target", "cultivar", *SMALL, "--seed", "1", "--out", "other")
    first, second, other = ((run / "weights.safetensors").read_bytes() for run in (path, again, tmp_path / "other"))
    assert first == second
    assert first != other


OPTIONS = {
    "target": "cultivar", "task": "classification", "categorical": "cultivar", "drop": "hue", "missing": "median",
    "na": "?", "sep": ",", "decimal": ".", "test_share": 0.3,
    "validation": 0.2,
    "width": 6, "depth": 3, "activation": "gelu", "norm": "layer", "dropout": 0.25, "skip": True,
    "optimizer": "lion", "learning_rate": 0.002, "schedule": "warmup-cosine", "schedule_epochs": 2.5,
    "weight_decay": 0.125, "clip": 1.5, "class_weights": "balanced",
    "batch_size": 12, "epochs": 1.5, "seed": 7, "label_smoothing": 0.1, "members": 2, "strategy": "vmap", "group": 1,
    "patience": 3, "save_every": 7.5, "keep": 2,
}  # fmt: skip

SEVERAL = ("coordinator", "processes", "process_id", "cluster")


def test_every_option_is_accepted_and_recorded(files, tmp_path):
    known = {parameter.name for parameter in typer.main.get_command(cli.app).commands["train"].params}
    assert known - {"help"} == {*OPTIONS, "name", "data_dir", "out", "plots", "resume", "anyway", "plan", *SEVERAL}
    given = [
        part for name, value in OPTIONS.items() for part in ("--" + name.replace("_", "-"), value) if value is not True
    ]
    assert nnjax("train", files / "wine.csv", *given, "--skip", "--no-plots", "--out", tmp_path / "run").code == 0
    config = read_json(tmp_path / "run" / "config.json")
    del config["versions"], config["sha256"]
    assert config == OPTIONS | {"data": str(files / "wine.csv"), "data_dir": None}
    # 178 rows: 53 for the test, of 125 25 for the validation; 1.5 epochs of 100 rows, 12 at a time
    assert read_json(tmp_path / "run" / "result.json")["steps"] == 13


def test_the_key_of_a_run_is_that_of_its_seed(files, tmp_path, monkeypatch):
    """The weights do not show it, for the split draws by the seed too."""
    keys = []
    monkeypatch.setattr(train, "fit", lambda *_, key, **__: keys.append(key) or stop())
    for seed in (0, 2**32 - 1):
        run = ("train", files / "wine.csv", "--target", "cultivar", "--seed", seed, "--out", tmp_path / str(seed))
        assert nnjax(*run).code == 130
    assert keys == [jax.random.key(0), jax.random.key(2**32 - 1)]


def test_where_fashion_mnist_is_is_recorded_as_a_whole_path(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name, shape in zip(idx.NAMES, [(60, 4, 4), (60,), (20, 4, 4), (20,)], strict=True):
        content = rng.integers(0, 10, shape, np.uint8)
        header = bytes([0, 0, 8, content.ndim]) + np.array(shape, ">u4").tobytes()
        (tmp_path / name).write_bytes(header + content.tobytes())
    monkeypatch.setattr(train, "fit", stop)
    monkeypatch.chdir(tmp_path.parent)
    assert nnjax("train", "fashion-mnist", "--data-dir", tmp_path.name, "--out", tmp_path / "a").code == 130
    monkeypatch.setenv("NNJAX_DATA_DIR", tmp_path.name)
    assert nnjax("train", "fashion-mnist", "--out", tmp_path / "b").code == 130
    assert nnjax("train", "digits", "--out", tmp_path / "c").code == 130
    folders = [read_json(tmp_path / name / "config.json")["data_dir"] for name in "abc"]
    assert folders == [str(tmp_path), str(tmp_path), None]


# Runs that diverge

HOT = ("--optimizer", "sgd", "--learning-rate", 1e30, "--norm", "none")


@pytest.fixture(scope="module")
def diverged(files):
    """A run that diverged, with pictures."""
    path = files / "diverged"
    given = ("--target", "cultivar", "--out", path, *SMALL, "--plots", *HOT)
    return path, with_warnings("train", files / "wine.csv", *given)


def test_a_run_that_diverged_says_so_in_place_of_scores(diverged):
    path, ended = diverged
    assert ended.code == 1, ended
    result, receipt = read_json(path / "result.json"), read_json(path / "receipt.json")
    step = result["diverged"]
    assert step == result["steps"] - 1
    assert result["test"] is receipt["test"] is receipt["first_losses"][step] is None
    message = f"the run diverged in step {step}: there is no network to test; nnjax replay {path} finds the cause\n"
    assert message in ended.out
    assert "accuracy" not in ended.out
    assert "nan" not in ended.out
    assert not list(path.glob("*.png"))
    assert re.search(f"warning the run diverged: the loss of step {step} is (nan|inf). A smaller --learning", ended.err)
    assert f"--clip 1 may help; nnjax replay {path} finds the cause\n" in ended.err
    assert not re.search(r"train\.replay|optax\.", ended.err)


def test_a_run_that_diverged_does_not_predict(files, diverged):
    path, _ = diverged
    assert_mistake(
        nnjax("predict", path, files / "wine.csv"),
        "diverged cannot predict, because its training diverged; train with a",
    )
    assert not (path / "predictions.csv").exists()


def test_a_run_that_diverged_is_verified_all_the_same(diverged, tmp_path):
    path = shutil.copytree(diverged[0], tmp_path / "run")
    ended = with_warnings("verify", path)
    assert ended.code == 0, ended
    assert "bit for bit" in ended.out
    around = read_json(path / "receipt.json")["bits_depend_on"] | {"jaxlib": "9.9"}
    change_json(path / "receipt.json", bits_depend_on=around)
    ended = with_warnings("verify", path)
    assert ended.code == 0, ended
    assert "within tolerance" in ended.out


def test_a_finite_run_says_that_it_did_not_diverge(wine):
    assert read_json(wine[0] / "result.json")["diverged"] is None


def test_with_patience_the_network_before_it_diverged_is_tested(files, tmp_path, monkeypatch):
    fit = train.fit
    monkeypatch.setattr(train, "fit", lambda *a, **k: fit(*a, **k)._replace(diverged=np.array(14)))
    given = ("--target", "cultivar", "--patience", 5, "--out", tmp_path / "run", *SMALL)
    ended = succeed("train", files / "wine.csv", *given)
    assert "diverged in step 14; the network with the lowest validation loss, from epoch" in ended.out
    result = read_json(tmp_path / "run" / "result.json")
    assert result["diverged"] == 14
    assert result["test"]["accuracy"] > 0


def test_predictions_that_are_not_finite_are_refused(files, wine, tmp_path, monkeypatch):
    frame = pd.read_csv(files / "wine.csv")
    frame.loc[3, "hue"] = 1e300
    frame.to_csv(tmp_path / "new.csv", index=False)
    predict = ("predict", wine[0], tmp_path / "new.csv", "--out", tmp_path / "p.csv")
    assert_mistake(nnjax(*predict), "line 5 holds a number too large for float32\n  in .*new.csv")
    frame.loc[3, "hue"] = -77.0
    frame.to_csv(tmp_path / "new.csv", index=False)
    monkeypatch.setattr(Table, "features", huge_hue(Table.features))
    assert_mistake(
        nnjax(*predict), "the predictions for 1 of 178 rows of .*new.csv are not finite, the first in line 5: "
    )
    assert not (tmp_path / "p.csv").exists()


def interrupted(*arguments):
    """Run the command to its first step: `replay` needs no more of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "fit", stop)
        assert nnjax(*arguments).code == 130


@pytest.mark.parametrize(("validation", "member"), [(0, None), (0.1, 1)])
def test_replay_names_the_rows_of_the_file(files, tmp_path, monkeypatch, validation, member):
    frame = pd.read_csv(files / "wine.csv")
    first, _ = data.split_rows(frame["cultivar"].to_numpy(str), 0.2)
    monkeypatch.setattr(Table, "features", huge_hue(Table.features))
    row = int(first[40])
    frame.loc[row, "hue"] = -77.0
    frame.to_csv(tmp_path / "out.csv", index=False)
    many = () if member is None else ("--members", 3, "--group", 2)
    given = ("--target", "cultivar", "--validation", validation, *SMALL, "--norm", "none", *many)
    interrupted("train", tmp_path / "out.csv", "--out", tmp_path / "run", *given)
    ended = nnjax("replay", tmp_path / "run", *(() if member is None else ("--member", 2)))
    assert ended.code == 1, ended
    assert f"; rows {row + 2} of out.csv (numbered by the lines of the file)\n" in ended.out
    if member is not None:
        assert ", member 2: " in ended.out


def huge_hue(features):
    """Features of 3e38 in the row where the hue is negative: any layer makes infinities of them."""

    def changed(table, frame, **options):
        x = features(table, frame, **options)
        x[np.asarray(frame["hue"]) < 0] = 3e38
        return x

    return changed


def test_replay_names_the_rows_of_a_named_set_in_its_training_part(tmp_path, monkeypatch):
    load = prepare.load_with

    def spoilt(*arguments):
        digits = load(*arguments)
        return digits._replace(train=digits.train._replace(x=digits.train.x.at[123].set(3e38)))

    monkeypatch.setattr(prepare, "load_with", spoilt)
    interrupted("train", "digits", "--out", tmp_path / "run", *SMALL, "--validation", 0.05, "--norm", "none")
    ended = nnjax("replay", tmp_path / "run")
    assert ended.code == 1, ended
    assert "; rows 123 of the training part of digits (from 0)\n" in ended.out


# Predictions


def test_predict_repeats_the_test_of_a_table(files, wine, tmp_path):
    path, _ = wine
    frame, result = pd.read_csv(files / "wine.csv"), read_json(path / "result.json")["test"]
    _, test = data.split_rows(frame["cultivar"].to_numpy(str), 0.2)
    frame.iloc[test].drop(columns="cultivar").to_csv(tmp_path / "new.csv", index=False)
    ended = succeed("predict", path, tmp_path / "new.csv", "--out", tmp_path / "p.csv")
    predicted = pd.read_csv(tmp_path / "p.csv")
    assert f"{len(test)} predictions written to {tmp_path / 'p.csv'}" in ended.out
    assert list(predicted) == ["cultivar", "p(class 0)", "p(class 1)", "p(class 2)"]
    np.testing.assert_allclose(probabilities(predicted).sum(1), 1, atol=1e-6)
    classes = ["class 0", "class 1", "class 2"]
    assert predicted["cultivar"].tolist() == [classes[i] for i in probabilities(predicted).argmax(1)]
    labels = frame["cultivar"][test].tolist()
    assert np.mean(predicted["cultivar"] == labels) == pytest.approx(result["accuracy"])
    assert nll(predicted, classes, labels) == pytest.approx(result["nll"], rel=1e-5)


def test_predict_repeats_the_test_of_the_digits_from_their_pixels(files, digits):
    path, _ = digits
    succeed("predict", path, files / "digits.npz")
    predicted, result = pd.read_csv(path / "predictions.csv"), read_json(path / "result.json")["test"]
    assert len(predicted) == 1797
    part = data.load("digits").test
    images = load_digits().images.reshape(-1, 64)
    rows = [int(np.flatnonzero((images == x).all(1))[0]) for x in np.asarray(part.x) * 16]
    labels = np.asarray(part.y)
    assert np.mean(predicted["y"][rows] == labels) == pytest.approx(result["accuracy"])
    classes = list(range(10))
    assert nll(predicted.iloc[rows], classes, labels) == pytest.approx(result["nll"], rel=1e-5)


def test_predict_repeats_the_test_of_arrays_even_untrained(files, tmp_path):
    succeed("train", files / "images.npz", "--out", tmp_path / "run", *SMALL, "--epochs", "0", "--validation", "0")
    assert read_json(tmp_path / "run" / "result.json")["steps"] == 0
    succeed("predict", tmp_path / "run", files / "images.npz", "--out", tmp_path / "p.csv")
    with np.load(files / "images.npz") as arrays:
        y = arrays["y"]
    _, test = data.split_rows(y.astype(str), 0.2)
    predicted = pd.read_csv(tmp_path / "p.csv").iloc[test]
    result = read_json(tmp_path / "run" / "result.json")["test"]
    assert nll(predicted, [0, 1, 2], y[test]) == pytest.approx(result["nll"], rel=1e-5)


def test_a_regression_speaks_in_the_units_of_its_target(files, diabetes, tmp_path):
    path, ended = diabetes
    frame, result = pd.read_csv(files / "diabetes.csv"), read_json(path / "result.json")["test"]
    succeed("predict", path, files / "diabetes.csv", "--out", tmp_path / "p.csv")
    predicted = pd.read_csv(tmp_path / "p.csv")
    assert list(predicted) == ["progression [mg]"]
    name = "progression [mg]"
    _, test = data.split_rows(frame[name].to_numpy(), 0.2, stratify=False)
    errors = predicted[name][test] - frame[name][test]
    assert result["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-5)
    assert result["r2"] == pytest.approx(1 - np.mean(errors**2) / frame[name][test].var(ddof=0), rel=1e-4)
    assert 30 < result["rmse"] < 200
    assert f"RMSE {result['rmse']:.4g} (in the units of progression [mg])" in ended.out  # brackets are no markup
    history = pd.read_csv(path / "metrics.csv")
    deviation = read_json(path / "table.json")["target_std"]
    np.testing.assert_allclose(history["validation_rmse"], deviation * np.sqrt(history["validation_loss"]), rtol=1e-4)


def test_predictions_do_not_depend_on_their_neighbours(files, wine, tmp_path):
    path, _ = wine
    frame = pd.read_csv(files / "wine.csv")
    succeed("predict", path, files / "wine.csv", "--out", tmp_path / "all.csv")
    frame.iloc[[100]].to_csv(tmp_path / "row.csv", index=False)
    succeed("predict", path, tmp_path / "row.csv", "--out", tmp_path / "one.csv")
    every, one = pd.read_csv(tmp_path / "all.csv"), pd.read_csv(tmp_path / "one.csv")
    np.testing.assert_allclose(probabilities(every)[100], probabilities(one)[0], rtol=1e-5)


# Mistakes. The data of those in SETTINGS do not exist: settings are looked at first.

SETTINGS = {
    ("--optimizer", "adem"): r"--optimizer: unknown optimizer 'adem' \(did you mean 'adam'\?\)",
    ("--activation", "rlu"): r"--activation: unknown activation 'rlu' \(did you mean 'relu'\?\)",
    ("--schedule", "cosin"): r"--schedule: unknown schedule 'cosin' \(did you mean 'cosine'\?\)",
    ("--dropout", "1.5"): r"dropout: rate must be in \[0, 1\), got 1.5",
    ("--dropout", "-0.1"): r"rate must be in \[0, 1\), got -0.1",
    ("--learning-rate", "-1"): r"--learning-rate: .* must be in \[0, inf\), got -1",
    ("--learning-rate", "nan"): "--learning-rate: .* got nan",
    ("--batch-size", "0"): "--batch-size: batch size must be ≥ 1, got 0",
    ("--batch-size", "1"): "--batch-size 1: batch normalisation needs .* use --norm layer or none",
    ("--epochs", "-1"): r"--epochs: epochs must be in \[0, inf\), got -1",
    ("--epochs", "inf"): "--epochs: .* got inf",
    ("--width", "0"): "--width: width must be ≥ 1, got 0",
    ("--depth", "-1"): r"--depth: depth must be in \[0, inf\), got -1",
    ("--skip", "--depth", "0"): r"--depth: depth must be in \[1, inf\), got 0",
    ("--clip", "0"): r"--clip: norm must be in \(0, inf\), got 0",
    ("--schedule-epochs", "2", "--epochs", "3"): "--schedule-epochs must be at least --epochs, 3, got 2",
    ("--schedule-epochs", "9", "--schedule", "constant"): "--schedule-epochs applies only to a schedule that decays",
    ("--weight-decay", "0.1", "--optimizer", "sgd"): "--weight-decay applies only to adamw and lion, not to sgd",
    ("--weight-decay", "-1"): r"weight_decay must be in \[0, inf\), got -1",
    ("--validation", "1"): r"--validation: share must be in \[0, 1\), got 1",
    ("--test-share", "0"): r"--test-share: share must be in \(0, 1\), got 0",
    ("--seed", "-1"): r"--seed: seed must be in \[0, 4294967296\), got -1",
    ("--seed", "4294967296"): "--seed: .* got 4.29497e",
    ("--label-smoothing", "1"): r"--label-smoothing: share must be in \[0, 1\), got 1",
    ("--members", "0"): "--members: members must be ≥ 1, got 0",
    ("--members", "2", "--group", "0"): "--group: group must be ≥ 1, got 0",
    ("--group", "2"): "--group applies only with --members",
    ("--patience", "0"): "--patience: patience must be ≥ 1, got 0",
    ("--patience", "3", "--validation", "0"): "--patience needs validation data; --validation must be > 0",
    ("--save-every", "-1"): r"--save-every: seconds must be in \[0, inf\), got -1",
    ("--keep", "0"): "--keep: keep must be ≥ 1, got 0",
    ("--anyway",): "--anyway applies only with --resume",
}
PLACES = {
    ("digit",): r"nnjax train: unknown data set 'digit' \(did you mean 'digits'\?\).* must end in .csv,",
    ("{files}/data.txt", "--target", "y"): "data.txt: the name of a table must end in .csv, .tsv, .*; rename the file",
    ("nowhere.csv", "--target", "y"): r"no file .*nowhere.csv",
    (
        "{files}/wine.csv",
    ): r"wine.csv: name the target, the column to predict; the columns are cultivar, alcohol \[%\],",
    ("{files}/wine.csv", "--target", "cultivr"): r"unknown target column 'cultivr' \(did you mean 'cultivar'\?\)",
    ("{files}/wine.csv", "--target", "cultivar", "--task", "regression"): "must hold numbers, got 'class 0' in line 2",
    (
        "{files}/wine.csv",
        "--target",
        "cultivar",
        "--validation",
        "0.001",
    ): "--validation 0.001 of 142 rows leaves one part empty; 0 turns validation off",
    (
        "{files}/diabetes.csv",
        "--target",
        "progression [mg]",
        "--test-share",
        "1e-9",
    ): "--test-share 1e-09 of 442 rows leaves one part empty",
    ("digits", "--target", "y"): "--target applies only to files; digits has labels as its target; omit it",
    ("digits", "--task", "regression"): "--task applies only to files; digits has labels as its target; omit it",
    ("digits", "--test-share", "0.5"): "--test-share applies only to files; digits has its own test part; omit it",
    ("digits", "--data-dir", "x"): "--data-dir applies only to fashion-mnist, not to digits; omit it",
    (
        "{files}/diabetes.csv",
        "--target",
        "progression [mg]",
        "--label-smoothing",
        "0.1",
    ): "applies only to classification",
    (): "no data: nnjax train needs digits, fashion-mnist, or a file such as table.csv",
    ("fashion-mnist", "--data-dir", "/nowhere"): "Fashion-MNIST was not found in /nowhere.*apt-get install",
    ("digits", "--out", "{files}/wine_run"): "wine_run already holds a run; choose another folder with --out",
    ("digits", "--out", "{files}/wine.csv"): r"wine.csv is a file; choose a folder with --out",
    (
        "digits",
        "--out",
        "{files}/wine.csv/run",
    ): "wine.csv/run cannot be written to: Not a directory; choose another folder with --out",
    ("digits", "--out", "/proc/run"): "/proc/run cannot be written to: .*; choose another folder with --out",
}


@pytest.mark.parametrize(("given", "message"), SETTINGS.items(), ids=map(" ".join, SETTINGS))
def test_wrong_settings_are_said_before_the_data_are_read(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    ended = nnjax("train", "nowhere.csv", "--target", "y", *given)
    assert_mistake(ended, message)
    assert not ended.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("given", "message"), PLACES.items(), ids=map(" ".join, PLACES))
@pytest.mark.usefixtures("wine")
def test_wrong_data_and_folders_are_said_before_anything_is_trained_or_written(
    files, tmp_path, monkeypatch, given, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "fit", lambda *_, **__: pytest.fail("trained"))
    before = {file: file.stat().st_mtime_ns for file in files.rglob("*")}
    assert_mistake(nnjax("train", *(part.format(files=files) for part in given)), message)
    assert not list(tmp_path.iterdir())
    assert {file: file.stat().st_mtime_ns for file in files.rglob("*")} == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--norm", "bach"), "'bach' is not one of 'none', 'batch', 'layer'"),
        (("--epochs", "many"), "Invalid value for '--epochs'"),
        (("--optimiser", "adam"), "No such option: --optimiser"),
    ],
)
def test_wrong_options(given, message):
    ended = nnjax("train", "digits", *given)
    assert ended.code == 2
    assert message in re.sub(r"[│\s]+", " ", ended.err)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns=["hue", "region"]), "missing columns: hue, region\n  in .*new.csv"),
        (
            lambda frame: frame.assign(region="east"),
            "'region': 'east' is not among the categories in training, north, south .line 2, 178 such rows in all",
        ),
        (lambda frame: frame.assign(hue="blue"), "column 'hue' must hold numbers, got 'blue' in line 2"),
        (
            lambda frame: frame.assign(hue=[np.nan, *frame["hue"][1:]]),
            "'hue': 1 value is missing, the first in line 2",
        ),
        (lambda frame: frame[:0], "new.csv has no rows"),
    ],
)
def test_predict_for_a_table_that_does_not_fit(files, wine, tmp_path, change, message):
    change(pd.read_csv(files / "wine.csv")).to_csv(tmp_path / "new.csv", index=False)
    assert_mistake(nnjax("predict", wine[0], tmp_path / "new.csv", "--strict", "--out", tmp_path / "p.csv"), message)
    assert not (tmp_path / "p.csv").exists()


def test_predict_for_the_training_file_has_a_note(files, wine, tmp_path):
    frame, text = pd.read_csv(files / "wine.csv"), "note most rows of this file were used in training"
    ended = succeed("predict", wine[0], files / "wine.csv", "--out", tmp_path / "p.csv")
    assert text in ended.out
    frame.iloc[:9].to_csv(tmp_path / "new.csv", index=False)
    assert text not in succeed("predict", wine[0], tmp_path / "new.csv", "--out", tmp_path / "p.csv").out


def test_predict_for_images_of_another_size(digits, tmp_path):
    np.savez(tmp_path / "big.npz", x=np.zeros((3, 28, 28)))
    assert_mistake(
        nnjax("predict", digits[0], tmp_path / "big.npz"), "x has 784 features, but the run was trained on 64"
    )


def test_predict_with_a_folder_that_is_no_run(files, wine, tmp_path):
    assert_mistake(nnjax("predict", tmp_path, files / "wine.csv"), "holds no run: config.json or table.json is missing")
    for name in ("config.json", "table.json", "result.json"):
        (tmp_path / name).write_bytes((wine[0] / name).read_bytes())
    warning = (
        rf"warning {tmp_path} has no receipt.json, so it is not certain that result.json and weights.safetensors .*\n"
    )
    for content, message in (
        (None, "no weights file .*weights.safetensors"),
        (b"hello", "weights.safetensors is damaged or not a safetensors file"),
    ):
        if content is not None:
            (tmp_path / "weights.safetensors").write_bytes(content)
        ended = with_warnings("predict", tmp_path, files / "wine.csv")
        assert re.match(f"{warning}error .*{message}", ended.err)
        assert ended.code == 2
    (tmp_path / "config.json").write_text("{")
    assert_mistake(nnjax("predict", tmp_path, files / "wine.csv"), r"config.json or table.json is damaged")


def test_predict_with_files_and_folders_that_are_not_there(files, wine, tmp_path):
    assert_mistake(nnjax("predict", wine[0], "nowhere.csv"), r"no file nowhere.csv")
    assert_mistake(nnjax("predict", wine[0], "digits"), "predict needs a file of new rows, not the data set 'digits'")
    far = "unknown column to keep 'nme'; known names are"  # similar to nothing
    assert_mistake(nnjax("predict", wine[0], files / "wine.csv", "--keep", "nme"), f".*{far}")
    ended = nnjax("predict", wine[0], files / "wine.csv", "--out", tmp_path / "nowhere" / "p.csv")
    assert_mistake(ended, "--out .*nowhere/p.csv: the folder .*nowhere does not exist or is not writable; create it")
    ended = nnjax("verify", wine[0], "--plot", tmp_path / "nowhere" / "p.png")
    assert_mistake(ended, "--plot .*nowhere/p.png: the folder .* does not exist")


def test_a_warning_is_a_line_and_a_mistake_no_traceback_in_a_process_of_its_own(files, tmp_path):
    pd.read_csv(files / "wine.csv").to_csv(tmp_path / "numbered.csv")  # with row numbers, as by default
    ended = process(
        "train", tmp_path / "numbered.csv", "--target", "cultivar", "--test-share", 1e-9, "--out", tmp_path / "run"
    )
    assert ended.code == 2
    warning, error = ended.err.splitlines()
    assert re.match("warning .*the first column has no name", warning)
    assert error.startswith("error ")
    assert not (tmp_path / "run").exists()


def test_ctrl_c_says_how_to_go_on(files, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "fit", stop)
    ended = nnjax("train", files / "wine.csv", "--target", "cultivar", "--out", tmp_path / "a run")
    assert ended.code == 130
    assert ended.err == f"stopped; continue with: nnjax train --resume '{tmp_path / 'a run'}'\n"
    assert sorted(file.name for file in (tmp_path / "a run").iterdir()) == ["config.json", "table.json"]


def test_a_lost_process_ends_the_others_with_code_3(files, tmp_path, monkeypatch):
    def lose(*_, **__):
        raise ProcessLostError("fit: another process ended")

    monkeypatch.setattr(train, "fit", lose)
    monkeypatch.setattr(os, "_exit", sys.exit)
    exit = nnjax("train", files / "wine.csv", "--target", "cultivar", "--out", tmp_path / "run")
    assert exit.code == 3
    assert exit.err.endswith(f"continue in all processes with: nnjax train --resume {tmp_path / 'run'}\n")


@pytest.mark.parametrize("module", ["jax", "typer"])
def test_ctrl_c_while_it_is_loading_is_quiet(tmp_path, module):
    """Python's own imports, and the command's."""
    (tmp_path / f"{module}.py").write_text("raise KeyboardInterrupt")
    (tmp_path / "nnjax").write_text("from nnjax.cli import main\nmain()")
    places = [str(tmp_path / "first"), str(Path(cli.__file__).parents[2])]
    (tmp_path / "first").mkdir()
    (tmp_path / f"{module}.py").rename(tmp_path / "first" / f"{module}.py")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, tmp_path / "nnjax", "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


# Help


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", ["train", "predict", "sweep", "search", "verify", "replay", ""])
def test_help_fits_the_terminal_and_names_everything(monkeypatch, command, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    ended = succeed(*command.split(), "--help")
    assert max(map(len, ended.out.splitlines())) <= columns
    assert "…" not in ended.out
    app = typer.main.get_command(cli.app)
    for parameter in app.commands[command].params if command else []:
        assert all(name in ended.out for name in parameter.opts if name.startswith("--"))
        assert parameter.name == "help" or parameter.help
    assert command or all(name in ended.out for name in app.commands)


def test_no_command_shows_the_help():
    assert "train" in nnjax().out
