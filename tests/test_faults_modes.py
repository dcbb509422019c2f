"""Everything runs under the modes in which people hunt mistakes, and a real NaN is raised where it arises."""

import contextlib
import importlib
import subprocess
import sys
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import data, losses, metrics, nn, optim, train
from nnjax.types import Data

N = 16
X = np.abs(np.random.default_rng(0).normal(size=(N, 3))).astype(np.float32) + 0.1
Y = (X[:, 0] > 0.8).astype(np.int32)
W = np.ones(N, np.float32)
KEY = jax.random.key(3)
NET = nn.serial(nn.dense(4, bias=False), nn.batch_norm(), jax.nn.relu, nn.dropout(0.2), nn.dense(2))
RUN = train.Run(NET, losses.cross_entropy, optim.adam(1e-2), batch_size=8, metrics=(metrics.accuracy,))
MICRO = train.Run(NET, losses.cross_entropy, optim.adam(1e-2), batch_size=8, micro_batches=2)


def fit(run=RUN, examples=(X, Y), **settings):
    return train.fit(run, examples, **{"epochs": 1, "key": KEY, "progress": False} | settings)


def resumed(out):
    settings = {
        "validation": (X, Y),
        "patience": 1,
        "out": out,
        "save_every": 0,
        "callbacks": [lambda ts, record: None],
    }
    fit(epochs=1, **settings)
    return fit(resume=True, epochs=2, **settings)


def plan(out):
    # Without jit the members are not one loop but as many copies of it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("nnjax.train.plan"), "FEW", 1)
        patch.setattr(importlib.import_module("nnjax.train.plan"), "MANY", 2)
        return train.plan(RUN, (X, Y), members=2, measure=False)


def make_run(hyper):
    net = nn.serial(nn.dense(4), jnp.tanh, nn.dropout(hyper["dropout"]), nn.dense(2))
    return train.Run(net, losses.cross_entropy, optim.adam(hyper["rate"]), batch_size=8)


JOBS = {
    "resumed": resumed,
    "weights and micro-batches": lambda out: fit(MICRO, (X, Y, W)),
    "folds": lambda out: fit(folds=train.k_fold(KEY, N, 2), patience=1, group=1),
    "bootstrap, vmap": lambda out: fit(folds=train.bootstrap(KEY, N, 2), strategy="vmap"),
    "source": lambda out: fit(examples=data.source(X, Y), members=2, out=out, validation=(X, Y)),
    "sweep": lambda out: train.sweep(
        make_run,
        {"rate": [0.1, 0.01], "dropout": [0.0, 0.5]},
        (X, Y),
        epochs=1,
        validation=(X, Y),
        patience=1,
        progress=False,
    ),
    "compare": lambda out: train.compare(RUN, RUN, (X, Y), epochs=1, seeds=2, validation=(X, Y), progress=False),
    "replay": lambda out: train.replay(RUN, (X, Y), epochs=1, step=1),
    "plan": plan,
    "evaluate": lambda out: RUN.evaluate(RUN.init(KEY, Data(X, Y)), Data(X, Y)),
    "random search": lambda out: train.random_search(KEY, 3, {"rate": (1e-3, 1.0, "log")}),
}


@contextlib.contextmanager
def debug_nans_and_infs():
    with jax.debug_nans(True), jax.debug_infs(True):
        yield


# Without the promotion of ranks and dtypes the whole suite runs, see conftest.py
MODES = {
    "debug_nans and debug_infs": debug_nans_and_infs,
    "transfer_guard": lambda: jax.transfer_guard("disallow"),
    "tracer leaks": jax.checking_leaks,
    "no jit": jax.disable_jit,
    "x64": lambda: jax.enable_x64(True),
}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("mode", MODES)
def test_modes(mode, job, tmp_path):
    with MODES[mode](), jax.numpy_dtype_promotion("standard"):
        JOBS[job](tmp_path)


def log_of(x):
    return jnp.log(x)  # the operation that fails


def broken(function):
    """Return a run whose loss is what the function returns, because an infinity may become NaN in later layers."""
    return train.Run(nn.serial(nn.dense(1), function), losses.squared_error, optim.sgd(0.1), batch_size=4)


ZERO = np.zeros((len(X), 1), np.float32)
EXAMPLES = {"memory": lambda: (X, ZERO), "source": lambda: data.source(X, ZERO)}
MEMBERS = {"lone": {}, "map": {"members": 2}, "vmap": {"members": 2, "strategy": "vmap"}}


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize(
    ("mode", "function"), [("debug_nans", lambda x: log_of(-jnp.abs(x))), ("debug_infs", lambda x: log_of(x * 0))]
)
def test_real_nan_is_raised_where_it_arises(mode, function, members, examples):
    if members != "lone" and examples == "source":
        pytest.skip("each of them alone is enough")
    with getattr(jax, mode)(True), pytest.raises(FloatingPointError, match="encountered in log") as info:
        fit(broken(function), EXAMPLES[examples](), **MEMBERS[members])
    assert any(frame.name == "log_of" for frame in traceback.extract_tb(info.value.__traceback__))


def test_nan_of_a_later_step_is_raised_where_it_arises():
    x = X.copy()
    x[11] = -5.0  # the only row whose logarithm is NaN
    net = nn.serial(log_of, nn.dense(2))
    run = train.Run(net, losses.cross_entropy, optim.sgd(0.1), batch_size=1)
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="encountered in log") as info:
        fit(run, (x, Y), chunk_steps=16)
    assert any(frame.name == "log_of" for frame in traceback.extract_tb(info.value.__traceback__))


LOG = train.Run(nn.serial(log_of, nn.dense(2)), losses.cross_entropy, optim.sgd(0.1), batch_size=4)


@pytest.mark.parametrize("members", MEMBERS)
def test_nan_of_a_validation_is_raised_where_it_arises(members):
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="encountered in log") as info:
        fit(LOG, validation=(-X, Y), **MEMBERS[members])
    assert any(frame.name == "log_of" for frame in traceback.extract_tb(info.value.__traceback__))


def test_scores_that_are_never_finite_are_infinite():
    result = fit(LOG, validation=(-X, Y))
    assert np.isinf(result.best.score)
    assert result.best.step == 0


# Random generators


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_other_generators(impl):
    key = jax.random.key(0, impl=impl)
    lone = [fit(key=key) for key in jax.random.split(key, 2)]
    for examples in ((X, Y), data.source(X, Y)):
        members = fit(examples=examples, key=key, members=2)
        for i in range(2):
            np.testing.assert_array_equal(members.losses[i], lone[i].losses)
        with pytest.raises(
            ValueError, match=f"strategy='vmap' needs threefry2x32 keys, got {impl}, which draws different"
        ):
            fit(examples=examples, key=key, members=2, strategy="vmap")


# Weights


def test_training_weights_that_are_all_zero():
    zero = np.zeros(N, np.float32)
    with pytest.raises(ValueError, match="the weights of the 16 training rows are all 0"):
        fit(examples=(X, Y, zero))
    with pytest.raises(ValueError, match="source: the weights of all 16 rows are 0"):
        data.source(X, Y, zero)
    some = np.where(np.arange(N) < 8, 1, 0).astype(np.float32)
    rows = train.Rows(np.stack([np.arange(8), np.arange(8) + 8]), np.array([8, 8]))
    with pytest.raises(ValueError, match="the weights of the 8 training rows of member 1 are all 0"):
        fit(examples=(X, Y, some), folds=train.Folds(rows, rows))


def test_micro_batches_of_16_bits_are_summed_in_32():
    x = jnp.asarray(np.abs(np.random.default_rng(0).normal(size=(256, 5))), jnp.bfloat16)
    batch = Data(x, jnp.zeros(256, jnp.int32))

    def gradient(parts):
        run = train.Run(nn.dense(3), losses.cross_entropy, optim.sgd(1.0), batch_size=256, micro_batches=parts)
        ts = run.init(KEY, batch)
        ts = ts._replace(params=jax.tree.map(jnp.zeros_like, ts.params))
        return np.asarray(jax.jit(run.step)(ts, batch)[0].params["w"], np.float32)

    whole = gradient(1)
    for parts in (16, 128):
        assert np.abs(gradient(parts) - whole).max() < 0.01 * np.abs(whole).max()


# The message of a run that diverges


def test_loss_that_is_nan_from_the_start_is_not_blamed_on_the_learning_rate():
    run = train.Run(nn.dense(2), lambda p, y: losses.cross_entropy(p, y) * jnp.nan, optim.sgd(0.1), batch_size=4)
    with pytest.warns(train.DivergedWarning, match="likely cause is in the data, the labels or the loss") as caught:
        result = fit(run)
    assert "learning rate" not in str(caught[0].message)
    assert (int(result.diverged), int(result.ts.step)) == (0, 1)  # the bad step is the last


# Processes


FORK = """
import os, sys, warnings
import jax.numpy as jnp, numpy as np
from nnjax import losses, nn, optim, train
warnings.simplefilter("ignore")

run = train.Run(nn.dense(2), losses.cross_entropy, optim.sgd(.1), batch_size=4)

def in_child():
    child = os.fork()
    if child == 0:
        try:
            print(train.fit(run, (np.ones((8, 3), "f4"), np.arange(8) % 2), epochs=1, progress=False).losses.shape)
        except RuntimeError as error:
            print(error)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)

in_child()
jnp.ones(3)
in_child()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_forked_process():
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True, timeout=120)
    before, after = done.stdout.splitlines()
    assert before == "(2,)"
    assert after.startswith("fit: this process was forked after JAX had started")
