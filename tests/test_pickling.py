"""Networks and runs in other processes: cloudpickle for closures, pickle for results and data."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from chex import assert_trees_all_equal

from nnjax import losses, nn, optim, train
from nnjax.types import Data

X, Y = jnp.linspace(-1, 1, 24).reshape(12, 2), jnp.arange(12) % 3

# Without the tests' type checker, whose wrappers cannot be pickled
WRITE = """
import sys
import cloudpickle, jax, numpy as np, optax
from cases import LAYERS
from nnjax import losses, metrics, nn, optim, train

for case in LAYERS:
    copy = cloudpickle.loads(cloudpickle.dumps(case.layer))
    x = jax.ShapeDtypeStruct(case.shape, "int32" if case.integers else "float32")
    shapes = jax.eval_shape(case.layer.init, jax.random.key(0), x)
    assert jax.eval_shape(copy.init, jax.random.key(0), x) == shapes, case.name
net = nn.serial(nn.mlp([8], 4, norm="batch", dropout=0.1), lambda y: 2 * y, nn.dense(3))
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optim.adamw(optax.cosine_decay_schedule(1e-2, 100)))
run = train.Run(net, lambda p, y: losses.focal(p, y), optimizer, batch_size=4, metrics=(metrics.accuracy,))
data = np.linspace(-1, 1, 24, dtype=np.float32).reshape(12, 2), np.arange(12, dtype=np.int32) % 3
result = train.fit(run, data, epochs=3, members=2, progress=False)
with open("run.pickle", "wb") as file:
    cloudpickle.dump((run, data, result), file)
"""
READ = """
import pickle
import numpy as np
from nnjax import train

with open("run.pickle", "rb") as file:
    run, data, result = pickle.load(file)
again = train.fit(run, data, epochs=3, members=2, progress=False)
assert (again.losses == result.losses).all() and np.isfinite(again.losses).all()
print("equal")
"""


def test_cloudpickle_carries_networks_and_runs_to_another_process(tmp_path):
    for program in (f"import sys; sys.path.append({str(Path(__file__).parent)!r})\n{WRITE}", READ):
        result = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "equal"


def test_results_and_data_are_pickled():
    run = train.Run(nn.mlp([8], 3, norm="batch"), losses.cross_entropy, optim.adam(1e-2), batch_size=4)
    result = train.fit(run, (X, Y), validation=(X, Y), epochs=2, members=2, progress=False)
    folds = train.k_fold(jax.random.key(0), 12, 3)
    for value in (result, Data(X, Y), folds):
        assert_trees_all_equal(pickle.loads(pickle.dumps(value)), value)


def test_pickle_alone_cannot_carry_closures():
    with pytest.raises((AttributeError, pickle.PicklingError), match=r"local object .*dense\.<locals>\.init"):
        pickle.dumps(nn.dense(3))


def test_copies_are_equal():
    run = train.Run(nn.mlp([8], 3), losses.cross_entropy, optim.adam(1e-2), batch_size=4)
    assert copy.deepcopy(run) == run
    assert hash(copy.deepcopy(run)) == hash(run)
