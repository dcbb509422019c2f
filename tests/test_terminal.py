"""What the terminal shows: progress, notes, suggestions, short forms, versions."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console
from runs import SMALL, nnjax, succeed

from nnjax.cli.config import Config, fit_batch, with_defaults
from nnjax.cli.convergence import describe_convergence
from nnjax.cli.prepare import prepare
from nnjax.cli.report import describe_caution
from nnjax.cli.usage import MEANINGS
from nnjax.train.engine import progress


def screen(monkeypatch, width=80):
    """Return the file of a terminal, whose bar is drawn into it."""
    file = io.StringIO()
    monkeypatch.setattr(progress, "_can_show", lambda console: True)
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=file, force_terminal=True, width=width))
    return file


def lines(file):
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def test_the_bar_compiles_counts_epochs_and_fits_80_columns(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    file = screen(monkeypatch)
    with progress.progress_bar(20_000, 40.0, show=True) as show:
        show({"step": 12_000}, 12_000)  # resumed
        clock[0] += 2
        show({"loss": 0.18434, "epoch": 26.0, "step": 13_000, "validation_accuracy": 0.857123}, 13_000)
    drawn = lines(file)
    assert any("compiling …" in line for line in drawn)
    assert drawn[-1].startswith("epoch 26/40 ")
    assert drawn[-1].endswith("loss 0.1843  validation accuracy 0.8571 500 steps/s  0:00:14")
    assert max(map(len, drawn)) <= 77  # with room for ^C


def test_the_bar_names_scores_as_the_lines_without_a_terminal_do(monkeypatch):
    file = screen(monkeypatch)
    with progress.progress_bar(10, 1.0, show=True) as show:
        show({"loss": 0.5, "epoch": 1.0, "step": 10, "validation_r2": 0.75, "validation_loss": 0.25}, 10)
    assert "  validation R² 0.7500" in lines(file)[-1]


def test_defaults_of_a_regression():
    config = Config("")
    classes, numbers = (with_defaults(config, task, 500, 5) for task in ("classification", "regression"))
    assert (classes.norm, classes.dropout, classes.epochs, classes.weight_decay) == ("batch", 0.3, 40, None)
    assert (numbers.activation, numbers.norm, numbers.dropout, numbers.patience) == ("gelu", "none", 0.0, None)
    assert numbers.epochs * 500 / config.batch_size >= 2000
    assert with_defaults(config, "regression", 100_000).epochs == 40
    decays = [with_defaults(config, "regression", n, 5).weight_decay for n in (100_000, 700, 500, 20)]
    assert decays == [0.01, 0.71, 1.0, 6.0]  # 100 × features / examples, within a range
    assert with_defaults(Config("", optimizer="lion"), "regression", 500, 5).weight_decay is None
    chosen = Config("", activation="tanh", norm="none", dropout=0.2, epochs=3, patience=2, weight_decay=0.5)
    assert with_defaults(chosen, "regression", 500, 5) == chosen


def test_small_files_are_one_batch_and_not_endless():
    assert fit_batch(Config(""), 14).batch_size == 14
    assert fit_batch(Config("", batch_size=32), 14).batch_size == 32  # as asked
    assert fit_batch(Config(""), 1000) == Config("")
    assert with_defaults(Config("", batch_size=14), "regression", 14).epochs == 1000


SCORES = {  # scores, test rows; the start of the note
    "few rows": ({"accuracy": 0.9}, 6, "the test set has only 6 rows"),
    "a leak": ({"accuracy": float(np.float32(1 - 6e-8))}, 50, "these scores are nearly perfect"),
    "a copy": ({"r2": 0.9995}, 50, "these scores are nearly perfect"),
    "luck": ({"accuracy": 1.0}, 30, ""),
    "good": ({"r2": 0.99}, 500, ""),
}


@pytest.mark.parametrize(("scores", "rows", "note"), SCORES.values(), ids=SCORES)
def test_scores_that_deceive_have_a_note(scores, rows, note):
    said = describe_caution(scores, rows, named=False)
    assert said.startswith(note)
    assert bool(said) == bool(note)


def losses(*values):
    return [{"epoch": e + 1.0, "step": e, "validation_loss": value} for e, value in enumerate(values)]


@pytest.mark.parametrize(
    ("history", "note"),
    [
        (losses(*(0.9**e for e in range(20))), r"was still falling, by .* of 20 epochs; .* --epochs 40"),
        (losses(*(0.5 + 0.5**e for e in range(20))), ""),
        (losses(1, 0.5, *(0.5 + 0.02 * e for e in range(18))), r"lowest in epoch 2 of 20 and rose by 66 % after it"),
        (losses(1, 0.5), ""),
        ([{"epoch": 1.0, "step": 5, "loss": 1.0}] * 9, ""),
    ],
)
def test_notes_on_convergence(history, note):
    text = describe_convergence(history, keeps_best=False)
    assert re.search(note, text) if note else text == ""


def test_a_small_rise_of_the_loss_of_few_rows_is_no_note():
    history = losses(1, 0.5, *(0.5 + 0.005 * e for e in range(18)))  # rises by 17 %
    assert describe_convergence(history, keeps_best=False, rows=30) == ""
    assert "the network overfits" in describe_convergence(history, keeps_best=False, rows=300)


def test_versions_short_forms_and_exit_codes():
    assert re.match(r"nnjax \S+\njax \S+\noptax \S+\n", succeed("--version").out)
    assert "Exit codes: 0 success" in succeed("--help").out
    ended = nnjax("train", "nowhere.csv", "-t", "y", "--lr", "0.1", "-o", "run")
    assert "no file" in ended.err


SUGGESTED = {"--layers": "--depth", "--batch": "--batch-size", "--dropuot": "--dropout"}


@pytest.mark.parametrize(("wrong", "meant"), SUGGESTED.items())
def test_options_are_suggested(wrong, meant):
    ended = nnjax("train", "digits", wrong, "3")
    assert ended.code == 2
    assert meant in ended.err


def test_all_meanings_are_options():
    known = "".join(succeed(command, "--help").out for command in ("train", "sweep", "search", "predict", "optcheck"))
    assert all(meant in known for meant in MEANINGS.values())


def test_the_edge_of_a_sweep_is_named(tmp_path):
    rates = ("--learning-rate", "1e-9,1e-2")
    ended = succeed("sweep", "digits", *rates, *SMALL, "--out", tmp_path / "sweep")
    assert "note the best learning rate, 0.01, is the largest that was tried; extend its range" in ended.out


def test_an_untrained_network_gets_no_advice(tmp_path):
    ended = succeed("train", "digits", *SMALL, "--epochs", "0", "--out", tmp_path / "run")
    assert "recall" in ended.out
    assert "never predicted" not in ended.out


def test_python_runs_the_package():
    ended = subprocess.run([sys.executable, "-m", "nnjax", "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("nnjax ")


def test_a_repeated_run_keeps_its_settings(tmp_path):
    """Settings of older runs are null where newer ones have a default of the task."""
    x = np.arange(40.0)
    np.savez(tmp_path / "t.npz", x=np.stack([x, np.sin(x)], 1), y=np.cos(x))
    saved = Config(str(tmp_path / "t.npz"), activation="relu", norm="batch", dropout=0.3, epochs=2)
    prepared = prepare(saved)
    assert prepared.config.weight_decay == 6.0
    assert prepare(saved, prepared.dataset.table).config == saved


@pytest.mark.parametrize(
    ("command", "codes"), [("train", "0123"), ("verify", "012"), ("plot", "02"), ("search", "012")]
)
def test_each_command_lists_its_exit_codes(command, codes):
    words = " ".join(nnjax(command, "--help").out.split())
    listed = words[words.index("Exit codes:") :]
    assert re.findall(r"(\d+) \w", listed) == [*codes, "130"]
