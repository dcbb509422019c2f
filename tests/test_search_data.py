"""`nnjax search` on files: CSV and NPZ, and the test rows, which no decision may depend on."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from runs import assert_mistake, nnjax, read_json, succeed
from sklearn.datasets import load_diabetes, load_iris

from nnjax.cli.config import Config
from nnjax.cli.prepare import prepare

SMALL = (
    "--width",
    "4,8",
    "--depth",
    "1",
    "--batch-size",
    "32",
    "--norm",
    "none",
    "--rungs",
    "1,3",
    "--population",
    "4",
)
GIVEN = ("--learning-rate", "1e-3..0.1:log", "--trials", "8", *SMALL, "--no-plots")


def write_csv(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])
    frame.assign(target=y).to_csv(path, index=False)


def write_npz(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    np.savez(path, x=x.astype(np.float32), y=y)


def test_rows(path: Path, rows: int) -> np.ndarray:
    """Return the rows that the command line holds out for the test."""
    dataset = prepare(Config(str(path), target="target" if path.suffix == ".csv" else None)).dataset
    first = 0 if dataset.lines is None else 2  # a file of lines begins with a header
    seen = dataset.rows if dataset.lines is None else dataset.lines
    return np.setdiff1d(np.arange(rows), np.asarray(seen) - first)


test_rows.__test__ = False


@pytest.mark.parametrize(
    ("kind", "load"), [("csv", load_iris), ("npz", load_iris), ("csv", load_diabetes)], ids=["csv", "npz", "regression"]
)
def test_no_decision_depends_on_the_test_rows(tmp_path, kind, load):
    x, y = load(return_X_y=True)
    file, write = tmp_path / f"table.{kind}", {"csv": write_csv, "npz": write_npz}[kind]
    write(file, x, y)
    target = ("--target", "target") if kind == "csv" else ()
    succeed("search", file, *target, *GIVEN, "--out", tmp_path / "first")
    held_out = test_rows(file, len(x))
    assert 0.15 * len(x) < len(held_out) < 0.25 * len(x)
    changed = x.copy()
    changed[held_out] = x[held_out[::-1]]  # the rows get the features of others
    write(file, changed, y)
    succeed("search", file, *target, *GIVEN, "--out", tmp_path / "second")
    first, second = tmp_path / "first", tmp_path / "second"
    assert (first / "search.csv").read_bytes() == (second / "search.csv").read_bytes()
    receipts = [read_json(path / "receipt.json") for path in (first, second)]
    assert receipts[0]["weights"] == receipts[1]["weights"]
    results = [read_json(path / "result.json") for path in (first, second)]
    assert results[0]["command"] == results[1]["command"]
    assert results[0]["ensemble"] == results[1]["ensemble"]
    assert results[0]["test"] != results[1]["test"]
    ended = nnjax("verify", first)  # the data are others now
    assert ended.code == 1
    assert "the data or their split have changed since the search" in ended.out


def test_the_search_of_an_npz_file_is_verified_and_its_command_runs(tmp_path):
    x, y = load_iris(return_X_y=True)
    write_npz(tmp_path / "iris.npz", x, y)
    given = [value if value != "4,8" else "8" for value in GIVEN]
    ended = succeed("search", tmp_path / "iris.npz", *given, "--out", tmp_path / "run")
    assert "rows 108 training, 12 validation, 30 test; 4 features" in (tmp_path / "run" / "report.html").read_text()
    assert "verified" in succeed("verify", tmp_path / "run").out
    (command,) = re.findall("best setting again with: nnjax (.*)", ended.out)
    succeed(*command.split(), "--out", tmp_path / "trained", "--no-plots")
    best = pd.read_csv(tmp_path / "run" / "search.csv").iloc[0]
    history = pd.read_csv(tmp_path / "trained" / "metrics.csv")
    (loss,) = history[history["epoch"] == best["epochs"]]["validation_loss"]
    assert loss == pytest.approx(best["score_3"], rel=1e-3)


def test_few_rows(tmp_path):
    x, y = load_iris(return_X_y=True)
    write_csv(tmp_path / "few.csv", x[::30], y[::30])
    ended = nnjax("search", tmp_path / "few.csv", "--target", "target", *GIVEN, "--out", tmp_path / "run")
    assert_mistake(ended, "")
    assert not (tmp_path / "run").exists()
