"""Training from a source: the bits of training in memory, bounded memory, no thread left behind."""

import functools
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from train_runs import assert_equal, stop_at

import nnjax
from nnjax import data, losses, metrics, nn, optim, train
from nnjax.train.engine import prefetch
from nnjax.train.folds import Folds, Rows

pytestmark = pytest.mark.optimized

N = 60
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, 5)).astype(np.float32)
Y = (X.sum(-1) > 0).astype(np.int32)
WEIGHTS = RNG.random(N).astype(np.float32)
NET = nn.serial(nn.dense(6), nn.batch_norm(), jax.nn.relu, nn.dropout(0.2), nn.dense(2))
RUN = train.Run(NET, losses.cross_entropy, optim.adam(1e-2), batch_size=8, metrics=(metrics.accuracy,))
UNEVEN = Folds(
    Rows(np.stack([np.arange(50), np.arange(50) + 10, np.arange(50)]), np.array([50, 13, 9])),
    Rows(np.arange(6).reshape(3, 2), np.array([2, 2, 1])),
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Some steps in a block."""
    monkeypatch.setattr(prefetch, "BYTES", 5 * 8 * (4 * 6 + 4))


def fit(examples, **settings):
    return train.fit(RUN, examples, **{"epochs": 4.3, "key": jax.random.key(5), "progress": False} | settings)


def of_memory(**settings):
    return fit((X, Y), **settings)


def of_source(**settings):
    return fit(data.source(X, Y), **settings)


def assert_same_run(a, b):
    assert_equal(a.ts, b.ts)
    np.testing.assert_array_equal(a.losses, b.losses)


CASES = {
    "single run": {},
    "folds": {"folds": UNEVEN, "validation": (X, Y)},
    "folds, vmap": {"folds": UNEVEN, "validation": (X, Y), "strategy": "vmap"},
}


@functools.cache
def undisturbed(case):
    return of_memory(**CASES[case])


@pytest.mark.parametrize("case", ["folds", "folds, vmap"])
@pytest.mark.parametrize("chunk_steps", [None, 1, 5])
def test_the_bits_of_memory(case, chunk_steps):
    """Of members that meet at the ends of their epochs; see test_train_properties.py for other runs."""
    assert_same_run(of_source(**CASES[case], chunk_steps=chunk_steps), undisturbed(case))


@pytest.mark.parametrize("size", [1, 8, 100_000])
def test_blocks_of_any_size_change_no_bit(size, monkeypatch):
    monkeypatch.setattr(prefetch, "BYTES", size)
    assert_same_run(of_source(**CASES["folds, vmap"]), undisturbed("folds, vmap"))


def test_weights():
    assert_same_run(fit(data.source(X, Y, WEIGHTS)), fit((X, Y, WEIGHTS)))
    assert not np.array_equal(fit(data.source(X, Y, WEIGHTS)).losses, undisturbed("single run").losses)


def test_mapped_file_is_read_as_it_is_needed(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", X)
    in_memory = undisturbed("single run")
    monkeypatch.setattr(importlib.import_module("nnjax.data._examples"), "validate", None)  # it would read all rows
    assert_same_run(fit((np.load(tmp_path / "x.npy", mmap_mode="r"), Y)), in_memory)


def test_under_64_bits():
    """The thread that gathers does not have the settings of the caller's."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        x, y = X.astype(np.float64) / 3, Y.astype(np.int64)
        a, b = fit((x, y), epochs=2), fit(data.source(x, y), epochs=2)
        assert a.losses.dtype == b.losses.dtype
        assert_same_run(a, b)


@pytest.mark.parametrize("step", [3, 5, 11])
def test_folds_are_resumed_anywhere(tmp_path, step):
    stop = {"callbacks": [stop_at(step)], "callback_every": 1}
    first = of_source(out=tmp_path, **CASES["folds"], **stop)
    assert first.ts.step.max() == step
    assert_same_run(of_source(out=tmp_path, resume=True, **CASES["folds"]), undisturbed("folds"))


def test_another_source_is_not_resumed(tmp_path):
    of_source(out=tmp_path, epochs=1)
    with pytest.raises(ValueError, match=r"cannot be resumed exactly:\n(.*\n)?  data"):
        fit(data.source(X + 1, Y), out=tmp_path, resume=True)


def test_no_steps():
    assert of_source(epochs=0).losses.shape == (0,)


def test_only_what_is_trained_on_is_read():
    asked = []
    found = data.source(X, Y)
    counted = found._replace(gather=lambda rows: (asked.append(rows), found.gather(rows))[1])
    fit(counted, epochs=1.6)  # 12 steps, in blocks of 5
    read = np.concatenate(asked)
    probes = sum(len(rows) for rows in asked if rows.tolist() == [0])
    assert len(read) - probes == 12 * 8  # nothing is read beyond the end
    assert set(read) == set(range(N))


def test_full_batch_is_refused():
    with pytest.raises(ValueError, match="batch_size=None takes all data at once"):
        train.fit(train.Run(NET, losses.cross_entropy, optim.adam(1e-2), batch_size=None), data.source(X, Y), epochs=1)


# The way of the members


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 12), min_size=3, max_size=3), min_size=1, max_size=4),
    st.lists(st.integers(1, 9), min_size=1, max_size=30),
)
def test_members_go_the_same_way_in_any_parts(lengths, parts):
    stops = list(np.cumsum(lengths, axis=0))
    end = sum(max(part) for part in lengths)

    def go(done, steps):  # as the host's loop does, one step at a time
        for _ in range(steps):
            stop = next((s for s in stops if (done < s).any()), None)
            done = done if stop is None else np.maximum(done, np.minimum(done + 1, stop))
        return done

    done, taken = np.zeros(3, int), 0
    for part in parts:
        if taken >= end:
            break
        taken += part
        done = prefetch.steps_ahead(done, part, stops)
        np.testing.assert_array_equal(done, go(np.zeros(3, int), taken))


def test_nobody_waits_after_the_last_stop():
    stops = [np.array([3, 5])]
    assert prefetch.steps_ahead(np.array([3, 5]), 4, stops).tolist() == [7, 9]
    assert prefetch.steps_ahead(np.array([0, 0]), 4, []).tolist() == [4, 4]


# Errors and ends


def gathering():
    return [thread for thread in threading.enumerate() if thread.name.startswith("nnjax-gather")]


def big(n=5000):
    """More rows than are looked at first."""
    x = RNG.standard_normal((n, 5)).astype(np.float32)
    return x, (x.sum(-1) > 0).astype(np.int32)


def test_mistake_deep_in_the_data_reaches_the_caller():
    x, y = big()
    x[1, 3] = np.nan
    with pytest.raises(ValueError, match=r"data\.x: 1 values are not finite, the first is nan at \[1, 3\]"):
        fit(data.source(x, y), epochs=1)
    x, y = big()
    y[1] = 2
    with pytest.raises(ValueError, match=r"label 2 in row 1 is outside 0 … 1"):
        fit(data.source(x, y), epochs=1)
    assert not gathering()


def test_error_of_the_source_reaches_the_caller():
    found, calls = data.source(X, Y), []

    def gather(rows):
        calls.append(len(rows))
        if len(calls) > 6:
            raise OSError("the disk is gone")
        return found.gather(rows)

    with pytest.raises(OSError, match="the disk is gone"):
        fit(found._replace(gather=gather), epochs=100)
    assert not gathering()


def test_thread_ends_with_the_run(monkeypatch):
    found = data.source(*big())
    monkeypatch.setattr(prefetch, "BYTES", 2**20)
    monkeypatch.setattr(prefetch, "pieces", lambda rows, size: np.array_split(rows, len(rows)))
    started = threading.Event()

    def slow(rows):
        time.sleep(0.002)  # a minute for all of a block
        if threading.current_thread() is not threading.main_thread():
            started.set()
        return found.gather(rows)

    def interrupt():
        started.wait()
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    clock = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fit(found._replace(gather=slow), epochs=50)
    thread.join()
    assert time.monotonic() - clock < 20
    assert not gathering()


def test_not_all_blocks_are_gathered_at_once():
    """Three at most: one in training, two ahead."""
    steps, asked = 5, []
    found = data.source(X, Y)

    def gather(rows):
        asked.append(len(rows))
        return found.gather(rows)

    def look(ts, record):
        time.sleep(0.05)
        assert sum(asked) <= 2 + 8 * (record["step"] + 3 * steps)

    fit(found._replace(gather=gather), epochs=30, callback_every=5, callbacks=[look])


RESIDENT = """
import sys
import numpy as np, jax
from nnjax import data, losses, nn, optim, train

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024

run = train.Run(nn.dense(2), losses.cross_entropy, optim.sgd(1e-3), batch_size=1024)
for width, rows in ((64, 300_000), (1024, 120_000)):
    x = np.memmap(sys.argv[1], np.float32, "r").reshape(-1, width)
    y = np.zeros(len(x), np.int32)
    y[::2] = 1
    train.fit(run, data.source(x, y), epochs=1024 / len(x), progress=False)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = peak()
    train.fit(run, (x, y), epochs=rows / len(x), progress=False)
    print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts resident pages here")
def test_resident_memory_is_bounded(tmp_path):
    """A file of 3 GB, of which by narrow rows all pages are touched, and by wide ones half a gigabyte is read."""
    file = tmp_path / "x.bin"
    with file.open("wb") as opened:
        opened.truncate(3 * 2**30)  # zeros that take no room on the disk
    command = [sys.executable, "-c", RESIDENT, str(file)]
    root = Path(nnjax.__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    narrow, wide = map(int, done.stdout.split())
    assert max(narrow, wide) < 450, done.stdout  # MB: three blocks of 64, and the pages in use
