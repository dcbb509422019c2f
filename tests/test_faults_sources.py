"""Sources that misbehave: what every read returns is checked, and a failing or hanging source loses no step."""

import functools
import os
import re
import signal
import threading
import time
import warnings
from concurrent import futures

import numpy as np
import pytest
from train_runs import assert_equal, assert_same_result

from nnjax import data, losses, nn, optim, train
from nnjax.train.engine import prefetch

F = np.float32
N = 200
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3)).astype(F)
Y = (X[:, 0] > 0).astype(np.int32)
W = np.ones(N, F)
RUN = train.Run(nn.dense(2), losses.cross_entropy, optim.sgd(0.1), batch_size=16)


def fit(source, **settings):
    return train.fit(RUN, source, **{"epochs": 2, "progress": False} | settings)


def source_of(gather, n=N):
    return data.Source(n, gather, 16, "digest")


def good(rows):
    return data.Data(X[rows], Y[rows], W[rows])


def later(bad):
    """Return a gather that is bad only where it has many rows to read, after the first looks."""
    return lambda rows: bad(rows) if len(rows) > 2 else good(rows)


# what is returned for many rows
RETURNED = {
    "nothing": (lambda d: None, TypeError, r"gather must return Data\(x, y\) or \(x, y, weights\), got NoneType"),
    "an array": (lambda d: d.x, TypeError, "gather must return .* got ndarray"),
    "a dict": (lambda d: {"x": d.x, "y": d.y}, TypeError, "gather must return .* got dict"),
    "four parts": (lambda d: (*d, d.y), TypeError, "gather must return .* got tuple"),
    "fewer rows": (lambda d: data.Data(d.x[:-1], d.y[:-1], d.weights[:-1]), ValueError, "the first axis must be the"),
    "fewer x": (lambda d: d._replace(x=d.x[:-1]), ValueError, "gather returned data.x .* the first axis must be"),
    "more rows": (lambda d: data.Data(*(np.r_[a, a] for a in d)), ValueError, "the first axis must be the rows"),
    "no rows": (lambda d: data.Data(*(a[:0] for a in d)), ValueError, "the first axis must be the rows"),
    "fewer features": (
        lambda d: d._replace(x=d.x[:, :2]),
        ValueError,
        r"data.x \(rows, 2\) float32.*expected",
    ),
    "no features' axis": (lambda d: d._replace(x=d.x[:, 0]), ValueError, r"data.x \(rows\) float32.*expected"),
    "another axis": (lambda d: d._replace(x=d.x[..., None]), ValueError, r"data.x \(rows, 3, 1\) float32.*expected"),
    "transposed": (lambda d: d._replace(x=d.x.T), ValueError, "the first axis must be the rows"),
    "float64": (lambda d: d._replace(x=d.x.astype(float)), ValueError, "float64.*expected .*float32"),
    "integer x": (lambda d: d._replace(x=d.x.astype(int)), ValueError, "int64.*expected .*float32"),
    "float labels": (lambda d: d._replace(y=d.y.astype(F)), ValueError, r"data.y \(rows\) float32.*expected"),
    "text": (lambda d: d._replace(x=d.x.astype(str)), TypeError, "data.x must be numbers, got <U"),
    "objects": (lambda d: d._replace(x=d.x.astype(object)), TypeError, "data.x must be numbers, got object"),
    "x is None": (lambda d: d._replace(x=None), ValueError, "gather returned data.y"),
    "y is None": (lambda d: d._replace(y=None), ValueError, r"are data.x .* expected data.x .* data.y"),
    "weights are None": (lambda d: d._replace(weights=None), ValueError, "expected .* data.weights"),
    "two inputs": (lambda d: d._replace(x=(d.x, d.x)), ValueError, "are data.x/0"),
    "a dict of inputs": (lambda d: d._replace(x={"a": d.x}), ValueError, "are data.x/a"),
    "a scalar": (lambda d: d._replace(x=F(1)), ValueError, "data.x must have a leading axis of rows"),
    "NaN": (lambda d: d._replace(x=d.x * np.nan), ValueError, "data.x: .* values are not finite"),
    "a NaN of weight": (lambda d: d._replace(weights=d.weights * np.nan), ValueError, "data.weights: .* not finite"),
    "negative weights": (lambda d: d._replace(weights=-d.weights), ValueError, "data.weights must be ≥ 0"),
    "masked": (lambda d: d._replace(x=np.ma.masked_less(d.x, 0)), ValueError, "values are masked"),
    "labels": (lambda d: d._replace(y=d.y + 1), ValueError, "data.y: label 2 in row .* is outside 0 … 1"),
}


@pytest.mark.parametrize("name", RETURNED)
def test_what_a_source_returns(name):
    change, error, message = RETURNED[name]
    with pytest.raises(error, match=message):
        fit(source_of(later(lambda rows: change(good(rows)))))


@pytest.mark.parametrize("name", [name for name in RETURNED if "first axis" in RETURNED[name][2]] + ["nothing", "text"])
def test_first_row(name):
    change, error, message = RETURNED[name]
    with pytest.raises(error, match=message) as info:
        data.as_examples(source_of(lambda rows: change(good(rows))))
    assert info.value.__notes__ == ["in the source, which was asked for rows 0"]


# what is converted, always and so without an error
CONVERTED = {
    "a pair": lambda rows: (X[rows], Y[rows]),
    "a list": lambda rows: [X[rows], Y[rows]],
    "float64": lambda rows: (X[rows].astype(float), Y[rows]),
    "int64": lambda rows: (X[rows], Y[rows].astype(np.int64)),
    "big-endian": lambda rows: (X[rows].astype(">f4"), Y[rows].astype(">i8")),
    "masked nowhere": lambda rows: (np.ma.array(X[rows]), Y[rows]),
    "sorts its rows": lambda rows: (rows.sort(), X[rows], Y[rows])[1:],
    "changes its rows": lambda rows: (X[rows], Y[rows], rows.fill(0))[:2],
}


@pytest.mark.parametrize("name", CONVERTED)
def test_what_is_converted(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        result = fit(source_of(CONVERTED[name]))
    np.testing.assert_array_equal(result.losses, fit((X, Y)).losses)


FIELDS = {
    "n": ({"n": 0}, ValueError, "Source: n must be ≥ 1"),
    "fractional n": ({"n": 1.5}, TypeError, "Source: n must be an integer"),
    "gather": ({"gather": X}, TypeError, "Source: gather must be a function"),
    "bytes_per_row": ({"bytes_per_row": -1}, ValueError, "Source: bytes_per_row must be ≥ 0"),
    "digest": ({"digest": None}, TypeError, "Source: digest must be a string"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields(name):
    change, error, message = FIELDS[name]
    with pytest.raises(error, match=message):
        fit(source_of(good)._replace(**change))


def test_wrong_bytes_are_measured_again():
    assert data.as_examples(source_of(good)._replace(bytes_per_row=1)).bytes_per_row == 4 * (3 + 1 + 1)


@pytest.mark.parametrize("members", [None, 2])
def test_weights_that_are_all_zero_are_noticed_once_all_rows_were_read(members):
    def without(rows):
        return good(rows)._replace(weights=np.zeros(len(rows), F))

    with pytest.raises(ValueError, match="source: the weights of all 200 rows are 0; choose other rows"):
        fit(source_of(without), members=members)


def test_some_weights_may_be_zero():
    weights = (np.arange(N) == N - 1).astype(F)
    source = source_of(lambda rows: data.Data(X[rows], Y[rows], weights[rows]))
    np.testing.assert_array_equal(fit(source).losses, fit((X, Y, weights)).losses)


def test_weights_in_a_file_that_are_all_zero(tmp_path):
    np.save(tmp_path / "w.npy", np.zeros(N, F))
    with pytest.raises(ValueError, match="source: the weights of all 200 rows are 0"):
        data.source(X, Y, np.load(tmp_path / "w.npy", mmap_mode="r"))


# Failing, hanging


class Failing:
    """A source that fails after some reads, or that hangs."""

    def __init__(self, after, error=None):
        self.left, self.error, self.hangs = after, error, threading.Event()

    def __call__(self, rows):
        if len(rows) > 2:
            self.left -= 1
        if self.left < 0:
            if self.error is not None:
                raise self.error
            self.hangs.set()
            time.sleep(60)
        return good(rows)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Ten steps in a block."""
    monkeypatch.setattr(prefetch, "BYTES", 10 * 16 * (4 * 5 + 4))


LONG = {"epochs": 8, "chunk_steps": 5}  # 100 steps, 10 blocks


@functools.cache
def undisturbed():
    return fit(data.Data(X, Y, W), **LONG)


def assert_continued(result):
    assert_equal(result.ts, undisturbed().ts)
    np.testing.assert_array_equal(result.losses, undisturbed().losses)


@pytest.mark.parametrize(
    "kind", [OSError, TimeoutError, StopIteration, ValueError, MemoryError, futures.CancelledError]
)
def test_error_of_a_source(kind, tmp_path):
    error = kind("of the source")
    with pytest.raises(kind, match="of the source") as info:
        fit(source_of(Failing(5, error)), out=tmp_path, **LONG)
    rows, saved = info.value.__notes__[:2]
    assert re.fullmatch(r"in the source, which was asked for rows \d+, \d+, \d+ … \d+ \(160 rows\)", rows)
    assert saved == (
        f"fit: this happened after step 50, which is saved in {tmp_path}; the same call with resume=True continues"
    )
    assert_continued(fit(source_of(good), out=tmp_path, resume=True, **LONG))


def test_error_without_a_folder():
    with pytest.raises(OSError, match="gone") as info:
        fit(source_of(Failing(5, OSError("gone"))), **LONG)
    assert info.value.__notes__[-1] == (
        "fit: this happened after step 50; nothing is saved, because out= was not passed"
    )


def test_error_of_a_callback(tmp_path):
    def fail(ts, record):
        if record["step"] == 63:
            raise ZeroDivisionError("in a callback")

    with pytest.raises(ZeroDivisionError) as info:
        fit(data.Data(X, Y, W), out=tmp_path, callbacks=[fail], callback_every=7, **LONG)
    assert "after step 63, which is saved" in info.value.__notes__[-1]
    assert_continued(fit(data.Data(X, Y, W), out=tmp_path, resume=True, **LONG))


def test_error_whose_folder_is_gone(tmp_path):
    folder = tmp_path / "run"

    def fail(ts, record):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        raise ZeroDivisionError

    with pytest.warns(RuntimeWarning, match="cannot be written"), pytest.raises(ZeroDivisionError) as info:
        fit(data.Data(X, Y, W), out=folder, callbacks=[fail], **LONG)
    assert re.search(f"after step 13, which is saved in {folder}.+; the same call", info.value.__notes__[-1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0, 5])
def test_source_that_hangs(number, after, tmp_path):
    source = Failing(after)

    def interrupt():
        source.hangs.wait()
        time.sleep(0.2)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    clock = time.monotonic()
    with pytest.raises(train.InterruptedRun) as info:
        fit(source_of(source), out=tmp_path, **LONG)
    thread.join()
    assert time.monotonic() - clock < 30
    assert str(info.value) == (
        f"stopped after step {10 * after}, while it waited for the source, saved in {tmp_path}; the same call with "
        "resume=True continues"
    )
    assert_continued(fit(source_of(good), out=tmp_path, resume=True, **LONG))


# Interrupted without a folder


def interrupt_at(step):
    def callback(ts, record):
        if record["step"] == step:
            os.kill(os.getpid(), signal.SIGINT)

    return {"callbacks": [callback], "callback_every": 1}


@pytest.mark.parametrize("settings", [{}, {"members": 3}, {"members": 3, "group": 2}], ids=str)
@pytest.mark.parametrize("source", [False, True])
def test_interrupted_run_in_memory(settings, source):
    examples = source_of(good) if source else data.Data(X, Y, W)
    settings = {**settings, "epochs": 2, "validation": (X, Y)}
    expected = fit(examples, **settings)
    with pytest.raises(train.InterruptedRun) as info:
        fit(examples, **settings, **interrupt_at(7))
    assert (info.value.step, info.value.folder) == (7, None)
    partial = info.value.partial
    assert (np.asarray(partial.ts.step) == 7).all()
    with pytest.raises(train.InterruptedRun) as info:
        fit(examples, **settings, resume=partial, **interrupt_at(11))
    for _ in range(2):  # it can be continued from repeatedly
        assert_same_result(fit(examples, **settings, resume=info.value.partial), expected)


def test_interrupted_run_is_continued_into_a_folder(tmp_path):
    with pytest.raises(train.InterruptedRun) as info:
        fit((X, Y), **interrupt_at(7))
    partial = info.value.partial
    result = fit((X, Y), resume=partial, out=tmp_path)
    np.testing.assert_array_equal(result.losses, fit((X, Y)).losses)
    with pytest.raises(FileExistsError):
        fit((X, Y), resume=partial, out=tmp_path)


def test_interrupted_run_is_not_continued_as_a_different_one():
    with pytest.raises(train.InterruptedRun) as info:
        fit((X, Y), **interrupt_at(7))
    partial = info.value.partial
    with pytest.raises(
        train.RunMismatchError, match=r"differs from the interrupted run(.*\n)+  data .*\npass the same"
    ):
        fit((X + 1, Y), resume=partial)
    with pytest.raises(ValueError, match="has taken 7 steps, but this run has only 4; continue with at least as many"):
        fit((X, Y), resume=partial, epochs=0.3)
