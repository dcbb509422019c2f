"""Wrong calls of train, data and debug: every message names the function, the argument, what was got and what to do."""

import traceback
import warnings
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import data, debug, losses, metrics, nn, optim, train
from nnjax.types import Data

X = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
D = Data(X, Y)
KEY = jax.random.key(0)
RUN = train.Run(nn.dense(2), losses.cross_entropy, optim.sgd(0.1), batch_size=4)
TS = RUN.init(KEY, D)


class Odd:
    def __repr__(self):
        return "<Odd>"


def no_arguments():
    return 3


WRONG = {
    "None": None,
    "True": True,
    "-1": -1,
    "0": 0,
    "1.5": 1.5,
    "1e20": 10**20,
    "nan": float("nan"),
    "text": "a",
    "bytes": b"x",
    "list": [3],
    "tuple": (1, 2, 3),
    "dict": {"a": 1},
    "object": Odd(),
    "matrix": np.ones((2, 2)),
    "text array": np.array("a"),
    "function": no_arguments,
    "layer without parentheses": nn.dense,
    "layer": nn.dense(2),
    "random_keys": jax.random.split(jax.random.key(0), 2),
}


class Call(NamedTuple):
    function: object
    arguments: dict
    right: dict  # the wrong values that are right for an argument


def make_run(hyper):
    return train.Run(nn.dense(2), losses.cross_entropy, optim.sgd(hyper["r"]), batch_size=4)


def fit_source(**fields):
    return train.fit(RUN, data.Source(**fields), epochs=0.2, progress=False)


def nonfinite(function, names):
    return debug.first_nonfinite(function, X, names=names)


NONE, NUMBER = "None", "0 1.5 1e20"
EPOCHS = "0 1.5"
COMMON = {"epochs": 0.2, "key": KEY, "strategy": "map", "mesh": None}
HOST = {"group": None, "patience": None, "validate_every": 1, "out": None, "resume": False, "keep": 3}
HOST |= {"save_every": 30.0, "callbacks": (), "progress": False}
RIGHT = {
    "epochs": EPOCHS,
    "key": "None random_keys",
    "mesh": NONE,
    "strategy": NONE,
    "group": NONE,
    "patience": NONE,
    "out": "None text",
    "resume": "True",
    "save_every": NUMBER,
    "progress": "True",
}
CALLS = {
    "Run": Call(
        train.Run,
        {"net": nn.dense(2), "loss": losses.cross_entropy, "optimizer": optim.sgd(0.1), "batch_size": 4}
        | {"metrics": (metrics.accuracy,), "micro_batches": 1},
        {"net": "layer", "batch_size": NONE},
    ),
    "Run.init": Call(RUN.init, {"key": KEY, "data": D}, {}),
    "Run.step": Call(RUN.step, {"ts": TS, "batch": D}, {}),
    "Run.steps": Call(RUN.steps, {"ts": TS, "data": D, "n": 2, "remat": False}, {"n": "0", "remat": "True"}),
    "Run.rows": Call(RUN.rows, {"key": KEY, "step": 0, "n_examples": 24, "n": 2}, {"step": "0", "n": "0"}),
    "Run.predict": Call(partial(RUN.predict, state=TS.state), {"params": TS.params, "x": X}, {}),
    "Run.evaluate": Call(RUN.evaluate, {"ts": TS, "data": D}, {}),
    "fit": Call(
        train.fit,
        {"run": RUN, "data": D, "members": None, "folds": None, "validation": None, "chunk_steps": None}
        | {"callback_every": None}
        | COMMON
        | HOST,
        RIGHT | dict.fromkeys(("members", "folds", "validation", "chunk_steps", "callback_every"), NONE),
    ),
    "sweep": Call(
        train.sweep,
        {"make_run": make_run, "hyper": {"r": [0.1]}, "data": D, "validation": D, "seeds": 1} | COMMON | HOST,
        RIGHT,
    ),
    "grid": Call(train.grid, {"choices": {"r": [0.1]}}, {}),
    "random_search": Call(train.random_search, {"key": KEY, "n": 2, "ranges": {"r": (0.1, 1.0)}}, {}),
    "k_fold": Call(train.k_fold, {"key": KEY, "n": 24, "k": 2, "stratify": None}, {"stratify": NONE}),
    "leave_one_out": Call(train.leave_one_out, {"n": 4}, {}),
    "bootstrap": Call(train.bootstrap, {"key": KEY, "n": 24, "members": 2}, {}),
    "compare": Call(
        train.compare,
        {"first": RUN, "second": RUN, "data": D, "validation": D, "seeds": 2, "confidence": 0.9, "progress": False}
        | COMMON,
        {"epochs": "1.5", "key": "None random_keys", "mesh": NONE, "strategy": NONE, "progress": "True"},
    ),
    "paired_difference": Call(
        train.paired_difference,
        {"first": np.ones(3), "second": np.arange(3.0), "confidence": 0.9},
        {"first": "tuple", "second": "tuple"},
    ),
    "plan": Call(
        train.plan,
        {"run": RUN, "data": D, "members": 1, "mesh": None, "memory": None, "measure": False},
        {"mesh": NONE, "memory": "None 1e20", "measure": "True"},
    ),
    "replay": Call(
        train.replay,
        {
            "run": RUN,
            "data": D,
            "members": None,
            "group": None,
            "folds": None,
            "step": None,
            "member": None,
            "out": None,
        }
        | COMMON,
        RIGHT | {"members": NONE, "folds": NONE, "step": "None 0", "member": "None 0"},
    ),
    "epoch_ends": Call(train.epoch_ends, {"epochs": 2, "n": 10, "batch_size": 4}, {"epochs": EPOCHS}),
    "as_data": Call(data.as_data, {"data": D}, {"data": "tuple layer"}),
    "as_examples": Call(data.as_examples, {"data": D}, {}),
    "batch_indices": Call(data.batch_indices, {"key": KEY, "step": 0, "n": 24, "batch_size": 4}, {"step": "0"}),
    "check_labels": Call(
        data.check_labels,
        {"data": D, "loss": losses.cross_entropy, "predict": lambda x: jnp.ones((len(x), 2)), "name": "data"},
        {"name": "text"},
    ),
    "digest": Call(data.digest, {"data": D}, {}),
    "n_bytes": Call(data.n_bytes, {"data": D}, {}),
    "n_rows": Call(data.n_rows, {"data": D}, {}),
    "sample": Call(data.sample, {"data": D}, {}),
    "take_rows": Call(data.take_rows, {"data": D, "rows": np.arange(3)}, {"rows": "0 list tuple"}),
    "validate": Call(data.validate, {"data": D, "name": "data"}, {"name": "text"}),
    "load": Call(
        data.load,
        {"name": "digits", "data_dir": None, "test_share": 0.2, "seed": 0},
        {"data_dir": "None text", "seed": "0"},
    ),
    "records": Call(
        data.records,
        {"dataset": [(X[i], Y[i]) for i in range(24)], "x": None, "y": None, "weights": None, "transform": None},
        dict.fromkeys(("x", "y", "weights", "transform"), NONE),
    ),
    "open_npy": Call(data.open_npy, {"x": "x.npy", "y": "y.npy"}, {}),
    "source": Call(
        data.source,
        {"x": X, "y": Y, "weights": None, "transform": None},
        dict.fromkeys(("y", "weights", "transform"), NONE),
    ),
    "Source": Call(
        fit_source,
        {"n": 24, "gather": lambda rows: Data(X[rows], Y[rows]), "bytes_per_row": 16, "digest": "a"},
        {"bytes_per_row": "0", "digest": "text"},
    ),
    "split_rows": Call(
        data.split_rows, {"y": Y, "share": 0.25, "seed": 0, "stratify": True}, {"seed": "0", "stratify": "True"}
    ),
    "count_flops": Call(partial(debug.count_flops, jnp.sin, X), {"trips": None}, {"trips": NONE}),
    "first_nonfinite": Call(nonfinite, {"function": jnp.sin, "names": ["batch"]}, {"names": NONE}),
}
# "name" is an argument of load, but the message of an unknown set has the name itself
UNNAMED = {
    *(("load", "name", "text"), ("load", "name", "dict")),  # a dict is a table: the message names its column
    *(("open_npy", "y", "text"), ("open_npy", "y", "dict"), ("open_npy", "x", "text")),
}


GRID = [pytest.param(name, argument, id=f"{name}({argument})") for name in CALLS for argument in CALLS[name].arguments]


@pytest.mark.parametrize(("name", "argument"), GRID)
def test_wrong_values(name, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = CALLS[name]
    for value in [value for value in WRONG if value not in call.right.get(argument, "").split()]:
        # A function that makes a layer is a function: it is called and complains about the array that it gets
        if value == "layer without parentheses" and argument in (
            "loss",
            "predict",
            "gather",
            "make_run",
            "transform",
            "function",
        ):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            with pytest.raises((TypeError, ValueError, FileNotFoundError)) as info:
                call.function(**(call.arguments | {argument: WRONG[value]}))
        frame = traceback.extract_tb(info.value.__traceback__)[-1]
        described = f"{name}({argument}={value}): {type(info.value).__name__}: {info.value}"
        assert "/nnjax/" in frame.filename, described
        assert frame.line.startswith("raise"), described  # a message of ours, not Python's
        text = str(info.value) + str(getattr(info.value, "__notes__", ""))
        assert argument in text or (name, argument, value) in UNNAMED, described


def counter(after):
    """Return a layer whose state is `after(x)` after a step."""
    init = lambda key, x: ((), {"mean": jnp.zeros((1, 3))})  # noqa: E731
    return nn.Layer("counter", init, lambda params, state, x, *, train, key=None: (x, {"mean": after(x)}))


def run_with(net=nn.dense(2), optimizer=optim.sgd(0.1)):
    return train.Run(net, losses.cross_entropy, optimizer, batch_size=4)


def shifted(update):
    return optim.sgd(0.1)._replace(init=lambda params: {"n": jnp.zeros(())}, update=update)


ADVICE = {
    "features without an axis": (
        lambda: train.fit(RUN, (X[:, 0], Y), epochs=1, progress=False), ValueError,
        r"got \(1,\); use x\[:, None\] for one feature per example, or x\[None\] for one example"),
    "resume without a folder": (
        lambda: train.fit(RUN, D, epochs=1, resume=True), ValueError, "resume=True needs out=, the folder"),
    "sweep without a folder": (
        lambda: train.sweep(make_run, {"r": [0.1]}, D, validation=D, epochs=1, resume="anyway"), ValueError,
        "resume='anyway' needs out="),
    "search without a folder": (
        lambda: train.search(make_run, {"r": train.uniform(0, 1)}, D, validation=D, trials=2, population=2, rungs=(1,),
                             resume=True), ValueError, "resume=True needs out="),
    "start from a path": (
        lambda: train.fit(RUN, D, epochs=1, start="runs/old"), TypeError, r"pass train\.load\('runs/old'\)"),
    "a file as folder": (
        lambda: train.fit(RUN, D, epochs=1, out=__file__), FileExistsError, "out must be a folder, but .* is a file"),
    "a folder in a file": (
        lambda: train.fit(RUN, D, epochs=1, out=f"{__file__}/run"), FileExistsError, r"\.py is a file; choose another"),
    "tree before path": (lambda: nnjax.save({"a": 1}, "net"), TypeError, r"got dict; the call is save\(path, tree\)"),
    "like before path": (lambda: nnjax.load({"a": 1}, "net"), TypeError, r"got dict; the call is load\(path, like\)"),
    "vmap over keys": (
        lambda: jax.vmap(lambda key: train.fit(RUN, D, epochs=1, key=key).losses)(jax.random.split(KEY, 2)), TypeError,
        r"fit: cannot run inside .* run\.steps"),
    "jit of a rate": (
        lambda: jax.jit(lambda r: train.fit(make_run({"r": r}), D, epochs=1).losses)(0.1), TypeError,
        r"fit: cannot run inside .* run\.steps"),
    "shape of a state": (
        lambda: train.fit(run_with(nn.serial(counter(lambda x: x.mean(0)), nn.dense(2))), D, epochs=1), TypeError,
        r"state/0/mean changes from \(1, 3\) float32 to \(3,\) float32"),
    "dtype of a state": (
        lambda: train.fit(run_with(nn.serial(counter(lambda x: x[:1].astype(jnp.bfloat16)), nn.dense(2))), D, epochs=1),
        TypeError, r"state/0/mean changes from \(1, 3\) float32 to \(1, 3\) bfloat16"),
    "dtype of an optimizer's state": (
        lambda: train.fit(run_with(optimizer=shifted(lambda g, s, p: (g, {"n": jnp.zeros((2,))}))), D, epochs=1),
        TypeError, r"opt_state/n changes from \(\) float32 to \(2,\) float32"),
}  # fmt: skip


@pytest.mark.parametrize("name", ADVICE)
def test_the_message_says_what_to_do(name):
    call, error, message = ADVICE[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_a_hidden_tracer_is_found_after_the_first_chunk():
    with pytest.raises(TypeError, match="fit: cannot run inside"):
        jax.vmap(lambda r: train.fit(make_run({"r": r}), D, epochs=1).losses)(jnp.ones(2))
