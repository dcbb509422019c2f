"""Runs of the command line cannot be lost: killed or stopped, they go on with one command, to the same bits."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from sklearn.datasets import load_wine
from test_cli import done, fails, nnjax, process, read

from nnjax import train
from nnjax.cli import run_folder
from nnjax.storage import checkpoint
from nnjax.train.engine import fingerprint

NET = ("--width", 8, "--depth", 1, "--batch-size", 16, "--no-plots")
LONG = (*NET, "--epochs", 1000, "--save-every", 0)
MANY = {"lone": (), "members": ("--members", 2)}


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """The same two programs, over and over."""
    path = str(tmp_path_factory.mktemp("compiled"))
    settings = {"jax_compilation_cache_dir": path, "jax_persistent_cache_min_compile_time_secs": 0}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name.upper(), str(value))  # for other processes
        before = {name: jax.config.values[name] for name in settings}
        for name, value in settings.items():
            jax.config.update(name, value)
        yield
        for name, value in before.items():
            jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def wine(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "wine.csv"
    load_wine(as_frame=True).frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def undisturbed(wine):
    """The runs that nothing happens to."""
    for name, many in MANY.items():
        ended = process("train", wine, "--target", "target", "--out", wine.parent / name, *many, *LONG)
        assert ended.code == 0, ended
    return wine.parent


def stopped_by(number, out, *command):
    """The command in a process of its own, which is sent a signal once there are two checkpoints."""
    given = [sys.executable, "-m", "nnjax.cli", *map(str, command), "--out", str(out)]
    began = subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = set()
    while len(seen) < 2:
        assert began.poll() is None, began.communicate()
        seen |= {path.name for path in checkpoint.files(out / "checkpoints")}
        time.sleep(0.005)
    began.send_signal(number)
    _, err = began.communicate(timeout=60)
    return began.returncode, err


@pytest.fixture(scope="module")
def interrupted(wine):
    """A run that Ctrl-C stopped; not to be touched."""
    path = wine.parent / "interrupted"
    code, err = stopped_by(signal.SIGINT, path, "train", wine, "--target", "target", *LONG)
    return path, code, err


@pytest.fixture
def copy(interrupted, tmp_path):
    """A run that Ctrl-C stopped."""
    return shutil.copytree(interrupted[0], tmp_path / "copy")


def assert_same(path, other):
    for name in ("weights.safetensors", "metrics.csv"):
        assert (path / name).read_bytes() == (other / name).read_bytes(), name
    assert read(path / "result.json")["test"] == read(other / "result.json")["test"]
    assert read(path / "receipt.json") == read(other / "receipt.json")


@pytest.mark.parametrize("name", MANY)
def test_killed_and_resumed_the_bits_are_those_of_the_undisturbed_run(wine, undisturbed, tmp_path, name):
    code, _ = stopped_by(signal.SIGKILL, tmp_path / "run", "train", wine, "--target", "target", *MANY[name], *LONG)
    assert code == -signal.SIGKILL
    assert not run_folder.finished(tmp_path / "run")
    ended = process("train", "--resume", tmp_path / "run", "--no-plots")
    assert ended.code == 0, ended
    assert "since it was resumed" in ended.out
    assert_same(tmp_path / "run", undisturbed / name)
    assert len(checkpoint.files(tmp_path / "run" / "checkpoints")) <= 4  # the last three and the best


def test_ctrl_c_says_the_command_that_goes_on_to_the_same_bits(undisturbed, interrupted, tmp_path, monkeypatch, copy):
    path, code, err = interrupted
    assert code == 130
    assert err.splitlines()[-1] == f"stopped; go on with: nnjax train --resume {path}"
    assert "Traceback" not in err
    monkeypatch.chdir(tmp_path)  # the data are found from anywhere
    done("train", "--resume", "copy", "--no-plots")
    assert_same(copy, undisturbed / "lone")


def test_a_run_killed_before_its_first_checkpoint_begins_anew(undisturbed, copy):
    shutil.rmtree(copy / "checkpoints")
    done("train", "--resume", copy, "--no-plots")
    assert_same(copy, undisturbed / "lone")


def test_a_run_killed_after_its_last_step_is_finished(undisturbed, tmp_path):
    path = shutil.copytree(undisturbed / "lone", tmp_path / "run")
    for name in ("receipt.json", "result.json", "weights.safetensors"):
        (path / name).unlink()
    done("train", "--resume", path, "--no-plots")
    assert_same(path, undisturbed / "lone")


def test_other_settings_are_refused_with_a_table(wine, copy, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *_, **__: pytest.fail("trained"))
    ended = nnjax("train", "digits", "--resume", copy, "--target", "target", "--width", 9, "--members", 2)
    assert ended.code == 2
    lines = [line.split() for line in ended.err.splitlines()]
    assert lines[0][:4] == ["error", "--resume", "goes", "on"]
    assert lines[1:5] == [
        ["saved", "now"],
        ["DATA", str(wine), "digits"],
        ["--width", "8", "9"],
        ["--members", "None", "2"],
    ]
    assert lines[5:] == [["leave", "them", "out,", "or", "begin", "a", "new", "run", "with", "--out"]]


def test_the_same_settings_and_those_that_change_nothing_may_be_given_again(wine, undisturbed, copy):
    done("train", wine, "--resume", copy, "--target", "target", "--save-every", 9, "--keep", 1, *LONG[:-2])
    assert_same(copy, undisturbed / "lone")
    assert len(checkpoint.files(copy / "checkpoints")) <= 2  # the last and the best


def test_another_version_is_refused_and_anyway_goes_on_and_notes_it(undisturbed, copy, monkeypatch):
    now = fingerprint.machine_fingerprint()
    monkeypatch.setattr(fingerprint, "machine_fingerprint", lambda: now | {"jaxlib": "9.9", "cores": "1000"})
    ended = nnjax("train", "--resume", copy)
    assert ended.code == 2
    assert "the run differs from the saved one, exact resume is impossible:\n" in ended.err
    rows = [line.split() for line in ended.err.splitlines()[2:-1]]
    assert rows == [["cores", now["cores"], "1000"], ["jaxlib", now["jaxlib"], "9.9"]]
    last = ended.err.splitlines()[-1]
    assert last == "--anyway goes on all the same; what comes of it can then not be repeated to the bit"
    assert "resume=" not in ended.err
    assert not run_folder.resumed_anyway(copy)
    done("train", "--resume", copy, "--no-plots", "--anyway")
    assert run_folder.resumed_anyway(copy)
    assert read(copy / "receipt.json")["resumed_anyway"] is True
    assert run_folder.load_config(copy) == run_folder.load_config(undisturbed / "lone")


def test_other_data_are_refused(wine, copy, tmp_path):
    lines = wine.read_text().splitlines()
    other = tmp_path / "wine.csv"
    other.write_text("\n".join([lines[0], lines[1].replace("14.23", "14.24"), *lines[2:]]))
    config = read(copy / "config.json")
    (copy / "config.json").write_text(json.dumps(config | {"data": str(other)}))
    ended = nnjax("train", "--resume", copy)
    assert ended.code == 2
    assert {line.split()[0] for line in ended.err.splitlines()[2:-1]} == {"data", "validation"}


def test_what_cannot_be_resumed_is_said(wine, undisturbed, copy, tmp_path):
    fails(nnjax("train", "--resume", undisturbed / "lone"), "lone is finished; there is nothing to resume")
    fails(nnjax("train", "--resume", tmp_path / "nowhere"), "nowhere holds no run: no config.json and table.json")
    fails(nnjax("train", "--resume", copy, "--out", copy), "--resume names the folder; leave --out out")
    given = ("train", wine, "--target", "target", *LONG)
    fails(nnjax(*given, "--out", copy), f"a run that is not finished; go on with: nnjax train --resume {copy}")
    fails(nnjax(*given, "--out", undisturbed / "lone"), "holds a run already; choose another folder with --out")
    for path in checkpoint.files(copy / "checkpoints"):
        os.truncate(path, path.stat().st_size - 1)
    ended = nnjax("train", "--resume", copy)
    assert ended.code == 2
    assert "holds no checkpoint that is whole" in ended.err
    last = ended.err.splitlines()[-1]
    assert last == f"  delete {copy / 'checkpoints'} to begin again from the first step"
    shutil.rmtree(copy / "checkpoints")
    done("train", "--resume", copy, "--no-plots")
    assert_same(copy, undisturbed / "lone")


def test_beside_a_run_that_goes_on_another_cannot(wine, tmp_path):
    """And costs it nothing, not even a note in its settings."""
    path = tmp_path / "run"
    given = ("train", wine, "--target", "target", *LONG, "--epochs", 100_000)
    live = [sys.executable, "-m", "nnjax.cli", *map(str, given), "--out", str(path)]
    with subprocess.Popen(live, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as began:
        try:
            while not checkpoint.files(path / "checkpoints"):
                assert began.poll() is None, began.communicate()
                time.sleep(0.005)
            for more in ((), ("--anyway",)):
                fails(
                    nnjax("train", "--resume", path, *more), rf"another process \({began.pid}\) is training in {path}/"
                )
            assert began.poll() is None
            began.send_signal(signal.SIGINT)
            _, err = began.communicate(timeout=60)
        finally:
            began.kill()
    assert began.returncode == 130, err
    assert err.splitlines()[-1] == f"stopped; go on with: nnjax train --resume {path}"
    assert not run_folder.resumed_anyway(path)


def test_a_full_disk_does_not_end_the_run_and_its_end_says_how_to_go_on(wine, tmp_path, undisturbed, monkeypatch):
    write, full = checkpoint.write, []

    def fails_at_times(path, *content):
        full.append(path)
        if len(full) in (2, 3) or path.name == f"step-{8000:012d}.safetensors":
            raise OSError(28, "No space left on device")
        write(path, *content)

    monkeypatch.setattr(checkpoint, "write", fails_at_times)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        ended = nnjax("train", wine, "--target", "target", "--out", tmp_path / "run", *LONG)
    assert ended.code == 2
    # The last one is tried a second time where it was due already
    assert ended.err.count("warning a checkpoint was not written: [Errno 28] No space left on device") in (2, 3)
    error = ended.err[ended.err.index("error ") :].splitlines()
    assert error == [
        "error [Errno 28] No space left on device",
        f"  go on with: nnjax train --resume {tmp_path / 'run'}",
    ]
    monkeypatch.undo()
    done("train", "--resume", tmp_path / "run", "--no-plots")
    assert_same(tmp_path / "run", undisturbed / "lone")
