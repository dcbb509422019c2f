"""Runs of the command line cannot be lost: killed or stopped, one command continues them to the same bits."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from runs import SMALL, assert_mistake, assert_same_run, nnjax, read_json, succeed, with_warnings, write_wine

from nnjax import train
from nnjax.cli import run_folder
from nnjax.storage import checkpoint
from nnjax.storage.lock import folder_lock
from nnjax.train.engine import fingerprint

EPOCHS = 120  # of 8 steps, each saved: time enough to be killed in
LONG = ("--target", "cultivar", *SMALL, "--epochs", EPOCHS, "--save-every", 0)
MANY = {"single": (), "members": ("--members", 2)}
THOROUGH = os.environ.get("NNJAX_THOROUGH") == "1"


@pytest.fixture(scope="module")
def wine(tmp_path_factory):
    return write_wine(tmp_path_factory.mktemp("files") / "wine.csv")


@pytest.fixture(scope="module")
def undisturbed(wine):
    """The runs that nothing happens to."""
    for name, many in MANY.items():
        succeed("train", wine, "--out", wine.parent / name, *many, *LONG)
    return wine.parent


def signalled(number, out, *command):
    """Start the command in its own process, and send it a signal once there are two checkpoints."""
    command = [sys.executable, "-m", "nnjax.cli", *map(str, command), "--out", str(out)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = set()
    while len(seen) < 2:
        assert child.poll() is None, child.communicate()
        seen |= {path.name for path in checkpoint.files(out / "checkpoints")}
        time.sleep(0.005)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    return child.returncode, err


@pytest.fixture(scope="module")
def interrupted(wine):
    """A run that Ctrl-C stopped; not to be touched."""
    path = wine.parent / "interrupted"
    code, err = signalled(signal.SIGINT, path, "train", wine, *LONG)
    return path, code, err


@pytest.fixture
def copy(interrupted, tmp_path):
    """A run that Ctrl-C stopped."""
    return shutil.copytree(interrupted[0], tmp_path / "copy")


@pytest.mark.parametrize("name", MANY if THOROUGH else ["members"])
def test_a_killed_run_is_resumed_to_the_bits_of_the_undisturbed_run(wine, undisturbed, tmp_path, name):
    code, _ = signalled(signal.SIGKILL, tmp_path / "run", "train", wine, *MANY[name], *LONG)
    assert code == -signal.SIGKILL
    assert not run_folder.is_finished(tmp_path / "run")
    exit = succeed("train", "--resume", tmp_path / "run", "--no-plots")
    assert "since the run was resumed" in exit.out
    assert_same_run(tmp_path / "run", undisturbed / name)
    assert len(checkpoint.files(tmp_path / "run" / "checkpoints")) <= 4  # the last three and the best


def test_ctrl_c_says_the_command_that_continues_to_the_same_bits(undisturbed, interrupted, tmp_path, monkeypatch, copy):
    path, code, err = interrupted
    assert code == 130
    assert re.fullmatch(rf"stopped after step \d+; continue with: nnjax train --resume {path}", err.splitlines()[-1])
    assert "Traceback" not in err
    monkeypatch.chdir(tmp_path)  # the data are found from anywhere
    succeed("train", "--resume", "copy", "--no-plots")
    assert_same_run(copy, undisturbed / "single")


def test_a_run_killed_before_its_first_checkpoint_begins_anew(undisturbed, copy):
    shutil.rmtree(copy / "checkpoints")
    succeed("train", "--resume", copy, "--no-plots")
    assert_same_run(copy, undisturbed / "single")


def test_a_run_killed_after_its_last_step_is_finished(undisturbed, tmp_path):
    path = shutil.copytree(undisturbed / "single", tmp_path / "run")
    for name in ("receipt.json", "result.json", "weights.safetensors"):
        (path / name).unlink()
    succeed("train", "--resume", path, "--no-plots")
    assert_same_run(path, undisturbed / "single")


def test_other_settings_are_refused_with_a_table(wine, copy, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *_, **__: pytest.fail("trained"))
    ended = nnjax("train", "digits", "--resume", copy, "--target", "cultivar", "--width", 9, "--members", 2)
    assert ended.code == 2
    lines = [line.split() for line in ended.err.splitlines()]
    assert lines[0][:4] == ["error", "--resume", "continues", "with"]
    assert lines[1:5] == [
        ["saved", "now"],
        ["DATA", str(wine), "digits"],
        ["--width", "8", "9"],
        ["--members", "None", "2"],
    ]
    assert lines[5:] == [["omit", "them,", "or", "start", "a", "new", "run", "with", "--out"]]


def test_the_same_settings_and_those_that_change_nothing_may_be_given_again(wine, undisturbed, copy):
    succeed("train", wine, "--resume", copy, *LONG, "--save-every", 9, "--keep", 1)
    assert_same_run(copy, undisturbed / "single")
    assert len(checkpoint.files(copy / "checkpoints")) <= 2  # the last and the best


def test_another_version_is_refused_and_anyway_continues_and_is_recorded(undisturbed, copy, monkeypatch):
    now = fingerprint.machine_fingerprint()
    monkeypatch.setattr(fingerprint, "machine_fingerprint", lambda: now | {"jaxlib": "9.9", "cores": "1000"})
    ended = nnjax("train", "--resume", copy)
    assert ended.code == 2
    assert "the run differs from the saved one and cannot be continued exactly:\n" in ended.err
    rows = [line.split() for line in ended.err.splitlines()[2:-1]]
    assert rows == [["cores", now["cores"], "1000"], ["jaxlib", now["jaxlib"], "9.9"]]
    last = ended.err.splitlines()[-1]
    assert last == (
        "continue with --anyway (the result is then not reproducible bit for bit), or start a new run with --out"
    )
    assert "resume=" not in ended.err
    assert not run_folder.resumed_anyway(copy)
    succeed("train", "--resume", copy, "--no-plots", "--anyway")
    assert run_folder.resumed_anyway(copy)
    assert read_json(copy / "receipt.json")["resumed_anyway"] is True
    assert run_folder.load_config(copy) == run_folder.load_config(undisturbed / "single")


def test_other_data_are_refused(wine, copy, tmp_path):
    lines = wine.read_text().splitlines()
    other = tmp_path / "wine.csv"
    other.write_text("\n".join([lines[0], lines[1].replace("14.23", "14.24"), *lines[2:]]))
    config = read_json(copy / "config.json")
    (copy / "config.json").write_text(json.dumps(config | {"data": str(other)}))
    ended = nnjax("train", "--resume", copy)
    assert ended.code == 2
    assert {line.split()[0] for line in ended.err.splitlines()[2:-1]} == {"data", "validation"}


def test_what_cannot_be_resumed_is_said(wine, undisturbed, copy, tmp_path):
    assert_mistake(nnjax("train", "--resume", undisturbed / "single"), "single is finished; there is nothing to resume")
    assert_mistake(
        nnjax("train", "--resume", tmp_path / "nowhere"), "nowhere holds no run: config.json or table.json is missing"
    )
    assert_mistake(nnjax("train", "--resume", copy, "--out", copy), "--resume already names the folder; omit --out")
    given = ("train", wine, *LONG)
    assert_mistake(nnjax(*given, "--out", copy), f"an unfinished run; continue with: nnjax train --resume {copy}")
    assert_mistake(
        nnjax(*given, "--out", undisturbed / "single"), "already holds a run; choose another folder with --out"
    )
    for path in checkpoint.files(copy / "checkpoints"):
        os.truncate(path, path.stat().st_size - 1)
    ended = nnjax("train", "--resume", copy)
    assert ended.code == 2
    assert "holds no intact checkpoint" in ended.err
    last = ended.err.splitlines()[-1]
    assert last == f"  delete {copy / 'checkpoints'} to start again from step 0"
    shutil.rmtree(copy / "checkpoints")
    succeed("train", "--resume", copy, "--no-plots")
    assert_same_run(copy, undisturbed / "single")


@pytest.mark.parametrize("more", [(), ("--anyway",)])
def test_a_second_process_cannot_train_in_the_folder(copy, more):
    """Nothing changes for the first process: not even --anyway is recorded."""
    with folder_lock(copy / "checkpoints"):
        assert_mistake(
            nnjax("train", "--resume", copy, *more), rf"{copy}.* is in use by another process \(PID {os.getpid()}\)"
        )
    assert not run_folder.resumed_anyway(copy)


def test_a_full_disk_does_not_end_the_run_and_its_end_says_how_to_go_on(wine, tmp_path, undisturbed, monkeypatch):
    write, full = checkpoint.write_file, []

    def fails_at_times(path, *content):
        full.append(path)
        if len(full) in (2, 3) or path.name == f"step-{8 * EPOCHS:012d}.safetensors":
            raise OSError(28, "No space left on device")
        write(path, *content)

    monkeypatch.setattr(checkpoint, "write_file", fails_at_times)
    ended = with_warnings("train", wine, "--out", tmp_path / "run", *LONG)
    assert ended.code == 2
    # The last one is tried a second time where it was due already
    assert ended.err.count("warning a checkpoint was not written: [Errno 28] No space left on device") in (2, 3)
    error = ended.err[ended.err.index("error ") :].splitlines()
    assert error == [
        "error [Errno 28] No space left on device",
        f"  continue with: nnjax train --resume {tmp_path / 'run'}",
    ]
    monkeypatch.undo()
    succeed("train", "--resume", tmp_path / "run", "--no-plots")
    assert_same_run(tmp_path / "run", undisturbed / "single")
