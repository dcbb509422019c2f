"""The run, the data and the comparisons that the tests of training share.

Programs of the same run and shapes are compiled once for all of these files.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np

from nnjax import losses, nn, optim, train
from nnjax.metrics import accuracy
from nnjax.types import Data

N, BATCH, STEPS = 20, 4, 5  # rows, rows in a batch, steps in an epoch
KEY = jax.random.key(5)
KEYS = jax.random.split(KEY, 3)
X = jax.random.normal(jax.random.key(1), (N, 3))
Y = jnp.asarray(np.random.default_rng(0).integers(0, 2, N), jnp.int32)  # nothing to learn: validation losses will rise
DATA = Data(X, Y)
HELD_OUT = Data(X[:7] + 0.5, Y[:7])
NET = nn.serial(nn.dense(4, bias=False), nn.batch_norm(), jax.nn.relu, nn.dropout(0.2), nn.dense(2))
RATE = 0.05


def make_run(net=NET, optimizer=None, batch_size=BATCH, **settings):
    settings = {"metrics": (accuracy,)} | settings
    return train.Run(net, losses.cross_entropy, optimizer or optim.adam(RATE), batch_size=batch_size, **settings)


RUN = make_run()


def fit(run=RUN, data=DATA, **settings):
    """Fit with validation, so that most tests share their programs."""
    return train.fit(run, data, **{"epochs": 3, "key": KEY, "validation": HELD_OUT, "progress": False} | settings)


# The settings of a sweep
SWEPT = {"rate": [0.1, 0.01, 0.03], "dropout": [0.0, 0.5, 0.2], "smoothing": [0.1, 0.0, 0.2]}


def make_swept(hyper):
    net = nn.serial(nn.dense(4, bias=False), nn.batch_norm(), jnp.tanh, nn.dropout(hyper["dropout"]), nn.dense(2))
    loss = partial(losses.cross_entropy, label_smoothing=hyper["smoothing"])
    return train.Run(net, loss, optim.adam(hyper["rate"]), batch_size=BATCH, metrics=(accuracy,))


def sweep(make=make_swept, hyper=SWEPT, data=DATA, **settings):
    settings = {"epochs": 2, "validation": HELD_OUT, "key": KEY, "progress": False} | settings
    return train.sweep(make, hyper, data, **settings)


def take(data, rows):
    return jax.tree.map(lambda a: a[rows], data)


def own_rows(rows, member):
    """Return the rows of a member, without those that pad the table."""
    return np.asarray(rows.table)[member][: rows.sizes[member]]


def mesh(**axes):
    devices = jax.devices()[: int(np.prod(list(axes.values())))]
    return jax.make_mesh(tuple(axes.values()), tuple(axes), devices=devices)


def stop_at(step):
    """Return a callback that ends the run at a step."""
    return lambda ts, record: record["step"] >= step


def assert_equal(a, b):
    """Bitwise, keys included."""
    plain = partial(jax.tree.map, lambda x: jax.random.key_data(x) if is_key(x) else x)
    chex.assert_trees_all_equal(plain(a), plain(b))


def assert_close(a, b, rtol=1e-5):
    """Relative to the largest number of each leaf."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if not is_key(x):
            np.testing.assert_allclose(x, y, rtol=0, atol=rtol * np.abs(y).max(initial=0))


def assert_same_history(a, b):
    assert [record.keys() for record in a] == [record.keys() for record in b]
    for record, expected in zip(a, b, strict=True):
        for name in record:
            np.testing.assert_array_equal(record[name], expected[name], name)


def assert_same_training(a, b):
    """The same steps. Validation may differ."""
    assert_equal(a.ts, b.ts)
    np.testing.assert_array_equal(a.losses, b.losses)
    np.testing.assert_array_equal(a.diverged, b.diverged)


def assert_same_result(a, b):
    """Everything of two results except the seconds."""
    assert_same_training(a, b)
    assert_equal(a.best, b.best)
    np.testing.assert_array_equal(a.stopped, b.stopped)
    assert_same_history(a.history, b.history)


def is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
