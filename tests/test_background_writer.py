"""The background writer: the host does not wait, errors are raised, intact files stay, old files are removed."""

import errno
import itertools
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnjax
from nnjax.storage import checkpoint, lock
from nnjax.storage.background_writer import checkpoint_writer
from nnjax.storage.lock import LOCK, folder_lock

THOROUGH = os.environ.get("NNJAX_THOROUGH") == "1"
TREE = {"w": np.zeros(3)}


def names(folder):
    return sorted(file.name for file in folder.iterdir() if file.name != LOCK)


def steps(folder):
    return [checkpoint.step_of(path) for path in checkpoint.files(folder)]


class GatedArray:
    """An array whose transfer to the host waits until the gate is opened."""

    dtype, shape = np.dtype(np.float32), (2,)

    def __init__(self):
        self.reached, self.opened = threading.Semaphore(0), threading.Semaphore(0)
        self.threads = []

    def __array__(self, dtype=None, copy=None):
        self.threads.append(threading.current_thread())
        self.reached.release()
        assert self.opened.acquire(timeout=60)
        return np.ones(2, np.float32)

    def wait(self):
        assert self.reached.acquire(timeout=60)

    def open(self):
        self.opened.release()


# In the background


def test_a_saved_tree_is_on_disk_at_the_end(tmp_path):
    tree = {"w": jnp.arange(3.0), "key": jax.random.key(1)}
    with checkpoint_writer(tmp_path / "deep" / "folder") as save:
        assert save(5, tree, {"seed": 1}, score=jnp.float32(0.5))
    path, restored, metadata = checkpoint.latest(tmp_path / "deep" / "folder", tree)
    assert path.name == "step-000000000005.safetensors"
    assert metadata == {"seed": 1, "step": 5, "score": 0.5}
    np.testing.assert_array_equal(restored["w"], tree["w"])
    assert restored["key"] == tree["key"]


def test_the_host_does_not_wait_for_transfer_and_writing(tmp_path):
    gate = GatedArray()
    with checkpoint_writer(tmp_path) as save:
        assert save(1, {"w": gate}, {}) is True  # returns although the transfer waits
        gate.wait()
        assert save(2, TREE, {}) is False  # and is not queued
        assert save(3, TREE, {}) is False
        assert steps(tmp_path) == []
        gate.open()
        assert save(4, TREE, {}, wait=True) is True
        assert steps(tmp_path) == [1, 4]  # waited for both
    assert threading.main_thread() not in gate.threads


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_the_end_waits_for_the_last_file(tmp_path, error):
    gate = GatedArray()
    with nullcontext() if error is None else pytest.raises(error), checkpoint_writer(tmp_path) as save:
        save(1, {"w": gate}, {})
        gate.wait()
        threading.Timer(0.05, gate.open).start()
        if error is not None:
            raise error
    assert steps(tmp_path) == [1]


def test_write_false_writes_nothing(tmp_path):
    with checkpoint_writer(tmp_path / "folder", write=False) as save:
        assert save(1, TREE, {}, score=1.0, wait=True) is False
    assert names(tmp_path) == []


def test_keep_must_be_positive(tmp_path):
    with (
        pytest.raises(ValueError, match="checkpoint_writer: keep must be ≥ 1, got 0"),
        checkpoint_writer(tmp_path, keep=0),
    ):
        pass


# Errors


def full_disk(monkeypatch, when):
    """Make writing fail while `when()` is true."""
    sync = os.fsync

    def fails(file):
        if when():
            raise OSError(28, "No space left on device")
        sync(file)

    monkeypatch.setattr(os, "fsync", fails)


def save_when_free(save, step):
    """Save a checkpoint as soon as the previous one is written."""
    while not save(step, TREE, {}):
        time.sleep(0.001)


def test_a_full_disk_warns_at_the_next_call_which_tries_again(tmp_path, monkeypatch):
    calls = itertools.count()
    full_disk(monkeypatch, lambda: next(calls) < 2)
    with checkpoint_writer(tmp_path) as save:
        assert save(1, TREE, {})
        for step in (1, 2):  # each failure warns
            message = (
                rf"not written: .*No space left.* while writing \d+ bytes to {checkpoint.step_path(tmp_path, step)}"
            )
            with pytest.warns(RuntimeWarning, match=message):
                save_when_free(save, step + 1)
    assert steps(tmp_path) == [3]


def test_a_full_disk_raises_with_wait(tmp_path, monkeypatch):
    calls = itertools.count()
    full_disk(monkeypatch, lambda: next(calls) == 0)
    with checkpoint_writer(tmp_path) as save:
        with pytest.raises(OSError, match="No space left") as caught:
            save(1, TREE, {}, wait=True)
        assert re.fullmatch(
            rf"while writing \d+ bytes to {checkpoint.step_path(tmp_path, 1)}", caught.value.__notes__[0]
        )
        assert save(2, TREE, {})
    assert steps(tmp_path) == [2]


def test_a_full_disk_raises_at_the_end_and_old_files_stay(tmp_path, monkeypatch):
    with checkpoint_writer(tmp_path, keep=1) as save:
        save(1, TREE, {})
    full_disk(monkeypatch, lambda: True)
    with pytest.raises(OSError, match="No space left"), checkpoint_writer(tmp_path, keep=1) as save:
        save(2, TREE, {})
    assert names(tmp_path) == ["step-000000000001.safetensors"]


def test_an_error_of_the_caller_is_not_hidden_by_one_of_writing(tmp_path, monkeypatch):
    full_disk(monkeypatch, lambda: True)

    def run():
        with checkpoint_writer(tmp_path) as save:
            save(1, TREE, {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        run()
    assert caught.value.__notes__ == [
        "also, the last checkpoint was not written: OSError(28, 'No space left on device')"
    ]


def test_a_tree_that_cannot_be_saved_raises(tmp_path):
    with pytest.raises(TypeError, match="w: expected numbers, got str"), checkpoint_writer(tmp_path) as save:
        save(1, {"w": "text"}, {})
    deleted = jnp.ones(2)
    deleted.delete()
    with pytest.raises(RuntimeError, match="deleted"), checkpoint_writer(tmp_path) as save:
        save(1, {"w": deleted}, {})


# Old checkpoints


@settings(max_examples=40, deadline=None)
@given(
    keep=st.integers(1, 4),
    scores=st.lists(st.none() | st.sampled_from([0.0, 1.0, 2.0, math.nan, math.inf]), min_size=1, max_size=8),
    restarts=st.sets(st.integers(0, 8)),
)
def test_the_last_checkpoints_and_the_best_stay(tmp_path_factory, keep, scores, restarts):
    folder = tmp_path_factory.mktemp("pruned")
    ends = sorted({0, len(scores), *(r for r in restarts if r < len(scores))})
    for begin, end in itertools.pairwise(ends):  # each pair is a process that was resumed
        with checkpoint_writer(folder, keep) as save:
            for step in range(begin, end):
                save(step, TREE, {}, scores[step], wait=True)
    real = {step: s for step, s in enumerate(scores) if s is not None and math.isfinite(s)}
    expected = set(range(len(scores))[-keep:])
    if real:
        expected |= {max(step for step, s in real.items() if s == min(real.values()))}
    assert set(steps(folder)) == expected


def test_damaged_and_later_checkpoints_are_neither_counted_nor_deleted(tmp_path):
    for step in (1, 2, 3, 8, 9):
        checkpoint.save(checkpoint.step_path(tmp_path, step), TREE, {"score": None})
    for step in (3, 4):
        path = checkpoint.step_path(tmp_path, step)
        path.write_bytes(checkpoint.step_path(tmp_path, 1).read_bytes()[:-1] + b"x")
    with checkpoint_writer(tmp_path, keep=2) as save:
        save(5, TREE, {})
    assert steps(tmp_path) == [2, 3, 4, 5, 8, 9]
    with checkpoint_writer(tmp_path, keep=1) as save:
        save(4, TREE, {})
        save(10, TREE, {}, wait=True)
    assert steps(tmp_path) == [3, 10]


def test_only_half_written_checkpoints_are_removed(tmp_path):
    unrelated = [
        "step-1.safetensors",
        ".hidden",
        "weights.safetensors",
        ".step-000000000001.safetensors.txt",
        "config.json",
    ]
    for name in [*unrelated, ".step-000000000001.safetensors.4711", f".step-000000000007.safetensors.{os.getpid()}"]:
        (tmp_path / name).write_bytes(b"half")
    with checkpoint_writer(tmp_path) as save:
        save(1, TREE, {})
    assert names(tmp_path) == sorted([*unrelated, "step-000000000001.safetensors"])


# One process at a time


HOLDER = """
import sys, time
from pathlib import Path
from nnjax.storage.lock import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_locked_until_its_process_is_killed(tmp_path):
    partial = tmp_path / ".step-000000000007.safetensors.4711"
    partial.write_bytes(b"half")  # which the other process is writing
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        message = rf"{tmp_path} is in use by another process \(PID {other.pid}\); wait until it ends or stop it"
        for _ in range(2):  # a refused process does not change the lock
            with pytest.raises(BlockingIOError, match=message), checkpoint_writer(tmp_path):
                pass
        assert names(tmp_path) == [partial.name]
        other.kill()
    with checkpoint_writer(tmp_path) as save:
        save(1, TREE, {})
    assert steps(tmp_path) == [1]


def test_the_lock_is_released_at_the_end(tmp_path):
    for _ in range(2):
        refused = pytest.raises(BlockingIOError, match=f"PID {os.getpid()}")
        with checkpoint_writer(tmp_path), refused, folder_lock(tmp_path):
            pass
    with checkpoint_writer(tmp_path, write=False), folder_lock(tmp_path):
        pass


def test_a_file_system_without_locks_is_tolerated(tmp_path, monkeypatch):
    def no_locks(file, blocking):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "lock_descriptor", no_locks)
    with checkpoint_writer(tmp_path) as save:
        save(1, TREE, {})
    assert steps(tmp_path) == [1]


# Killed processes

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from nnjax.storage.background_writer import checkpoint_writer

def work(folder, began):
    with checkpoint_writer(folder, keep=2) as save:
        for step in range(began, began + 10**6):
            save(step, {"step": np.full((), step), "w": np.full(100_000, step)}, {}, wait=True)

for line in sys.stdin:
    folder, began, seconds, number = line.split()
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # so that an error here does not block the tests
        try:
            os.write(go, b"!")
            work(Path(folder), int(began))
        except KeyboardInterrupt:
            os._exit(7)
        os._exit(1)
    os.read(ready, 1)  # a signal that came earlier would be lost
    time.sleep(float(seconds))
    os.kill(pid, int(number))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def killed():
    """Return a function that runs the program from a step for some seconds and ends it by a signal."""
    root = Path(nnjax.__file__).parents[1]
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=pipe, stdout=pipe, text=True, cwd=root) as process:

        def run(folder, began, seconds, number):
            process.stdin.write(f"{folder} {began} {seconds} {number}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield run
        process.stdin.close()


LIKE = {"step": np.zeros((), int), "w": np.zeros(100_000, int)}


def assert_intact(folder):
    """Return the latest step. A damaged file would cause a warning, which is an error in the tests."""
    path, tree, metadata = checkpoint.latest(folder, LIKE)
    assert checkpoint.step_of(path) == metadata["step"] == tree["step"]
    assert (tree["w"] == tree["step"]).all()
    return metadata["step"]


def test_a_killed_process_leaves_the_last_checkpoint_intact(tmp_path, killed):
    checkpoint.save(checkpoint.step_path(tmp_path, 0), LIKE, {"step": 0})
    kills, least_partial = (25, 3) if THOROUGH else (8, 1)
    rng = np.random.default_rng(0)
    last, partial = 0, 0
    for trial in itertools.count():
        if trial >= kills and last >= 10 and partial >= least_partial:  # some kills hit the middle of writing
            break
        assert trial < 200
        assert killed(tmp_path, last + 1, rng.uniform(0.01, 0.06), signal.SIGKILL.value) == -signal.SIGKILL
        now = assert_intact(tmp_path)
        assert now >= last
        last = now
        left = [name for name in names(tmp_path) if name.startswith(".")]
        partial += len(left)
        assert len(left) <= 1
    with checkpoint_writer(tmp_path, keep=2) as save:
        save(last + 1, LIKE, {})
    assert len(names(tmp_path)) == 2  # old and partial files are removed


def test_ctrl_c_leaves_the_last_checkpoint_intact_and_no_partial_file(tmp_path, killed):
    checkpoint.save(checkpoint.step_path(tmp_path, 0), LIKE, {"step": 0})
    last = 0
    for seconds in np.linspace(0.02, 0.06, 20 if THOROUGH else 5):
        assert killed(tmp_path, last + 1, seconds, signal.SIGINT.value) == 7
        now = assert_intact(tmp_path)
        assert now >= last
        last = now
        assert not [name for name in names(tmp_path) if name.startswith(".")]
