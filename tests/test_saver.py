"""Saving beside the run: the host does not wait, errors come back, what was whole stays whole, old files go."""

import itertools
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnjax
from nnjax.storage import checkpoint
from nnjax.storage.background_writer import saver
from nnjax.storage.lock import LOCK, locked
from nnjax.train.engine.signals import deferred_interrupts

TREE = {"w": np.zeros(3)}


def names(folder):
    return sorted(file.name for file in folder.iterdir() if file.name != LOCK)


def steps(folder):
    return [checkpoint.step_of(path) for path in checkpoint.files(folder)]


class Gate:
    """Stands in for the writing of a file, and holds it up until it is opened."""

    def __init__(self, monkeypatch):
        self.reached, self.opened = threading.Semaphore(0), threading.Semaphore(0)
        self.threads = []
        write = checkpoint.write

        def held(path, *content):
            self.threads.append(threading.current_thread())
            self.reached.release()
            assert self.opened.acquire(timeout=60)
            write(path, *content)

        monkeypatch.setattr(checkpoint, "write", held)

    def wait(self):
        assert self.reached.acquire(timeout=60)

    def open(self):
        self.opened.release()


# Beside the run


def test_a_saved_tree_is_there_at_the_end(tmp_path):
    tree = {"w": jnp.arange(3.0), "key": jax.random.key(1)}
    with saver(tmp_path / "deep" / "folder") as save:
        assert save(5, tree, {"seed": 1}, score=jnp.float32(0.5))
    path, back, metadata = checkpoint.latest(tmp_path / "deep" / "folder", tree)
    assert path.name == "step-000000000005.safetensors"
    assert metadata == {"seed": 1, "step": 5, "score": 0.5}
    np.testing.assert_array_equal(back["w"], tree["w"])
    assert back["key"] == tree["key"]


def test_the_host_goes_on_while_a_file_is_written(tmp_path, monkeypatch):
    gate = Gate(monkeypatch)
    with saver(tmp_path) as save:
        assert save(1, TREE, {}) is True  # returns, though nothing can be written
        gate.wait()
        assert save(2, TREE, {}) is False  # and is not queued
        assert save(3, TREE, {}) is False
        assert steps(tmp_path) == []
        gate.open()
        gate.open()
        assert save(4, TREE, {}, wait=True) is True
        assert steps(tmp_path) == [1, 4]  # both were waited for
    assert threading.main_thread() not in gate.threads


def test_the_end_waits_for_the_last_file(tmp_path, monkeypatch):
    gate = Gate(monkeypatch)
    with saver(tmp_path) as save:
        save(1, TREE, {})
        gate.wait()
        threading.Timer(0.05, gate.open).start()
    assert steps(tmp_path) == [1]


def test_after_an_error_in_the_run_the_last_file_is_written_all_the_same(tmp_path, monkeypatch):
    gate = Gate(monkeypatch)

    def run():
        with saver(tmp_path) as save:
            save(1, TREE, {})
            gate.wait()
            threading.Timer(0.05, gate.open).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert steps(tmp_path) == [1]


def test_values_are_fetched_from_the_device_on_the_thread(tmp_path):
    fetched = []

    class OnDevice:
        dtype, shape = np.dtype(np.float32), (2,)

        def __array__(self, dtype=None, copy=None):
            fetched.append(threading.current_thread())
            return np.ones(2, np.float32)

    with saver(tmp_path) as save:
        save(1, {"w": OnDevice()}, {})
    assert fetched
    assert threading.main_thread() not in fetched


def test_where_nothing_is_to_be_written_nothing_is(tmp_path):
    with saver(tmp_path / "folder", write=False) as save:
        assert save(1, TREE, {}, score=1.0, wait=True) is False
    assert names(tmp_path) == []


def test_at_least_one_is_kept(tmp_path):
    with pytest.raises(ValueError, match="saver: keep must be ≥ 1, got 0"), saver(tmp_path, keep=0):
        pass


# Errors


def full_disk(monkeypatch, when):
    """Writing fails as long as `when()`."""
    sync = os.fsync

    def fails(file):
        if when():
            raise OSError(28, "No space left on device")
        sync(file)

    monkeypatch.setattr(os, "fsync", fails)


def taken(save, step):
    """Saved once the checkpoint before is done."""
    while not save(step, TREE, {}):
        time.sleep(0.001)


def test_a_full_disk_is_told_at_the_next_call_which_saves_again(tmp_path, monkeypatch):
    calls = itertools.count()
    full_disk(monkeypatch, lambda: next(calls) < 2)
    with saver(tmp_path) as save:
        assert save(1, TREE, {})
        for step in (1, 2):  # each failure is told
            told = rf"not written: .*No space left.* while writing \d+ bytes to {checkpoint.step_path(tmp_path, step)}"
            with pytest.warns(RuntimeWarning, match=told):
                taken(save, step + 1)
    assert steps(tmp_path) == [3]


def test_a_full_disk_is_an_error_where_it_was_waited_for(tmp_path, monkeypatch):
    calls = itertools.count()
    full_disk(monkeypatch, lambda: next(calls) == 0)
    with saver(tmp_path) as save:
        with pytest.raises(OSError, match="No space left") as caught:
            save(1, TREE, {}, wait=True)
        assert re.fullmatch(
            rf"while writing \d+ bytes to {checkpoint.step_path(tmp_path, 1)}", caught.value.__notes__[0]
        )
        assert save(2, TREE, {})
    assert steps(tmp_path) == [2]


def test_a_full_disk_is_told_at_the_end_and_costs_no_file(tmp_path, monkeypatch):
    with saver(tmp_path, keep=1) as save:
        save(1, TREE, {})
    full_disk(monkeypatch, lambda: True)
    with pytest.raises(OSError, match="No space left"), saver(tmp_path, keep=1) as save:
        save(2, TREE, {})
    assert names(tmp_path) == ["step-000000000001.safetensors"]


def test_an_error_of_the_run_is_not_hidden_by_one_of_saving(tmp_path, monkeypatch):
    full_disk(monkeypatch, lambda: True)

    def run():
        with saver(tmp_path) as save:
            save(1, TREE, {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        run()
    assert caught.value.__notes__ == ["and the last checkpoint was not written: OSError(28, 'No space left on device')"]


def test_a_tree_that_cannot_be_saved_is_told(tmp_path):
    with pytest.raises(TypeError, match="w: numbers expected, got str"), saver(tmp_path) as save:
        save(1, {"w": "text"}, {})
    deleted = jnp.ones(2)
    deleted.delete()
    with pytest.raises(RuntimeError, match="deleted"), saver(tmp_path) as save:
        save(1, {"w": deleted}, {})


# Which files stay


@settings(max_examples=40, deadline=None)
@given(
    keep=st.integers(1, 4),
    scores=st.lists(st.none() | st.sampled_from([0.0, 1.0, 2.0, math.nan, math.inf]), min_size=1, max_size=8),
    restarts=st.sets(st.integers(0, 8)),
)
def test_the_last_ones_and_the_best_stay(tmp_path_factory, keep, scores, restarts):
    folder = tmp_path_factory.mktemp("pruned")
    wanted = set()
    ends = sorted({0, len(scores), *(r for r in restarts if r < len(scores))})
    for begin, end in itertools.pairwise(ends):  # a process each
        with saver(folder, keep) as save:
            for step in range(begin, end):
                save(step, TREE, {}, scores[step], wait=True)
    real = {step: s for step, s in enumerate(scores) if s is not None and math.isfinite(s)}
    wanted = set(range(len(scores))[-keep:])
    if real:
        wanted |= {max(step for step, s in real.items() if s == min(real.values()))}
    assert set(steps(folder)) == wanted


def test_nothing_is_deleted_before_the_new_file_is_on_the_disk(tmp_path, monkeypatch):
    done = []
    sync, replace, unlink = os.fsync, Path.replace, Path.unlink
    with saver(tmp_path, keep=1) as save:
        save(1, TREE, {})
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("sync"), sync(file)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (done.append("replace"), replace(a, b)))
    monkeypatch.setattr(Path, "unlink", lambda a, **kw: (done.append(f"unlink {a.name[-13:]}"), unlink(a, **kw)))
    with saver(tmp_path, keep=1) as save:
        save(2, TREE, {})
    assert done == ["sync", "replace", "sync", "unlink 1.safetensors"]


def test_damaged_ones_neither_count_nor_are_deleted_and_later_ones_stay(tmp_path):
    for step in (1, 2, 3, 8, 9):
        checkpoint.save(checkpoint.step_path(tmp_path, step), TREE, {"score": None})
    for step in (3, 4):
        path = checkpoint.step_path(tmp_path, step)
        path.write_bytes(checkpoint.step_path(tmp_path, 1).read_bytes()[:-1] + b"x")
    with saver(tmp_path, keep=2) as save:
        save(5, TREE, {})
    assert steps(tmp_path) == [2, 3, 4, 5, 8, 9]
    with saver(tmp_path, keep=1) as save:
        save(4, TREE, {})
        save(10, TREE, {}, wait=True)
    assert steps(tmp_path) == [3, 10]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    others = [
        "step-1.safetensors",
        ".hidden",
        "weights.safetensors",
        ".step-000000000001.safetensors.txt",
        "config.json",
    ]
    for name in [*others, ".step-000000000001.safetensors.4711", f".step-000000000007.safetensors.{os.getpid()}"]:
        (tmp_path / name).write_bytes(b"half")
    with saver(tmp_path) as save:
        save(1, TREE, {})
    assert names(tmp_path) == sorted([*others, "step-000000000001.safetensors"])


# One process at a time


HOLDER = """
import sys, time
from pathlib import Path
from nnjax.storage.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_that_another_process_writes_to_is_left_alone(tmp_path):
    half = tmp_path / ".step-000000000007.safetensors.4711"
    half.write_bytes(b"half")  # which the other one is writing
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        told = rf"another process \({other.pid}\) is training in {tmp_path}; wait for its end, or stop it"
        with pytest.raises(BlockingIOError, match=told), saver(tmp_path) as save:
            save(1, TREE, {})
        assert names(tmp_path) == [half.name]
        other.kill()
    with saver(tmp_path) as save:  # the lock went with it
        save(1, TREE, {})
    assert steps(tmp_path) == [1]


def test_the_lock_ends_with_the_saver(tmp_path):
    for _ in range(2):
        with saver(tmp_path), pytest.raises(BlockingIOError), locked(tmp_path):
            pass
    with saver(tmp_path, write=False), locked(tmp_path):  # who does not write locks nothing
        pass


# Signals


def test_a_signal_that_is_ignored_stays_so_and_handlers_come_back():
    own = signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with deferred_interrupts() as noted:
            os.kill(os.getpid(), signal.SIGINT)
            assert not noted()
            os.kill(os.getpid(), signal.SIGTERM)
            assert noted()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, own)
        signal.signal(signal.SIGTERM, before)


def test_a_handler_that_python_did_not_set_is_no_trouble(monkeypatch):
    real = signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, handler: real(number, handler) and None)
    own = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        with deferred_interrupts():
            pass
    finally:
        monkeypatch.undo()
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), own, strict=True):
            signal.signal(number, handler)


# Killed

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from nnjax.storage.background_writer import saver

def work(folder, began):
    with saver(folder, keep=2) as save:
        for step in range(began, began + 10**6):
            save(step, {"step": np.full((), step), "w": np.full(100_000, step)}, {}, wait=True)

for line in sys.stdin:
    folder, began, seconds, number = line.split()
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # so that no error here keeps the tests waiting
        try:
            os.write(go, b"!")
            work(Path(folder), int(began))
        except KeyboardInterrupt:
            os._exit(7)
        os._exit(1)
    os.read(ready, 1)  # a new process loses the signals that come before this
    time.sleep(float(seconds))
    os.kill(pid, int(number))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def killed():
    """A function that runs the program for a while from a step on, and ends it by a signal."""
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


def assert_whole(folder):
    """The latest step; any damage would be a warning, which is an error in the tests."""
    path, tree, metadata = checkpoint.latest(folder, LIKE)
    assert checkpoint.step_of(path) == metadata["step"] == tree["step"]
    assert (tree["w"] == tree["step"]).all()
    return metadata["step"]


def test_a_process_killed_at_any_moment_leaves_the_last_checkpoint_whole(tmp_path, killed):
    checkpoint.save(checkpoint.step_path(tmp_path, 0), LIKE, {"step": 0})
    rng = np.random.default_rng(0)
    last, half_written = 0, 0
    for trial in itertools.count():
        if trial >= 25 and last >= 10 and half_written >= 3:  # the kills did hit the middle of writing
            break
        assert trial < 200
        assert killed(tmp_path, last + 1, rng.uniform(0.01, 0.06), signal.SIGKILL.value) == -signal.SIGKILL
        now = assert_whole(tmp_path)
        assert now >= last
        last = now
        left = [name for name in names(tmp_path) if name.startswith(".")]
        half_written += len(left)
        assert len(left) <= 1
        assert 1 <= len(checkpoint.files(tmp_path)) <= 4


def test_ctrl_c_at_any_moment_leaves_the_last_checkpoint_whole_and_nothing_half_written(tmp_path, killed):
    checkpoint.save(checkpoint.step_path(tmp_path, 0), LIKE, {"step": 0})
    last = 0
    for seconds in np.linspace(0.02, 0.06, 8):
        assert killed(tmp_path, last + 1, seconds, signal.SIGINT.value) == 7
        now = assert_whole(tmp_path)
        assert now >= last
        last = now
        assert not [name for name in names(tmp_path) if name.startswith(".")]
