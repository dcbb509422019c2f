"""Every hyper-parameter may be a traced array: a sweep under `jax.vmap` is the loop of runs with Python's floats."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import OPTIMIZERS

from nnjax import losses, nn, optim, train
from nnjax.types import Data

STEPS = 20
generator = np.random.default_rng(0)
X, REAL = generator.normal(size=(12, 3)), generator.normal(size=(12, 2))
LABELS = generator.integers(0, 2, 12)


@pytest.fixture(scope="module", autouse=True)
def quick_compiler():
    """The programs are many and small: XLA need not spend its time on making them fast."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def simple(w_init):
    """An initialiser whose draws compile at once."""
    return lambda key, shape, dtype: w_init * jax.random.uniform(key, shape, dtype, -1.0, 1.0)


def net(*layers):
    return nn.serial(nn.dense(3, w_init=simple(1.0)), *layers, jnp.tanh, nn.dense(2, w_init=simple(1.0)))


def a_run(network=None, loss=losses.squared_error, optimizer=None):
    return train.Run(network or net(), loss, optimizer or optim.momentum(0.02), None)


def scaled(factor):
    return nn.dense(2, w_init=nn.initializers.scaled(simple(1.0), factor))


# component: hyper-parameter -> a run; and two values
HYPER = {
    "dropout: rate": (lambda v: a_run(net(nn.dropout(v))), (0.0, 0.5)),
    "mlp: dropout": (lambda v: a_run(nn.mlp([3], 2, dropout=v)), (0.0, 0.5)),
    "residual_mlp: dropout": (lambda v: a_run(nn.residual_mlp(3, 2, 2, norm=None, dropout=v)), (0.0, 0.5)),
    "batch_norm: decay": (lambda v: a_run(net(nn.batch_norm(decay=v))), (0.0, 0.9)),
    "batch_norm: eps": (lambda v: a_run(net(nn.batch_norm(eps=v))), (1e-5, 0.1)),
    "layer_norm: eps": (lambda v: a_run(net(nn.layer_norm(eps=v))), (1e-5, 0.1)),
    "scale: initial": (lambda v: a_run(net(nn.scale(v))), (0.0, 0.5)),
    "initializers.scaled: factor": (lambda v: a_run(scaled(v)), (0.0, 0.5)),
    "huber: delta": (lambda v: a_run(loss=partial(losses.huber, delta=v)), (0.1, 1.0)),
    "cross_entropy: label_smoothing": (
        lambda v: a_run(loss=partial(losses.cross_entropy, label_smoothing=v)), (0.0, 0.1)),
    "clip_by_global_norm: max_norm": (
        lambda v: a_run(optimizer=optax.chain(optax.clip_by_global_norm(v), optim.momentum(0.1))), (0.1, 1.0)),
    "clip: max_delta": (
        lambda v: a_run(optimizer=optax.chain(optax.clip(v), optim.momentum(0.1))), (0.1, 1.0)),
    "params_ema: decay": (
        lambda v: a_run(optimizer=optax.chain(optim.momentum(0.1), optim.params_ema(v))), (0.0, 0.9)),
    "schedule: its own parameter": (
        lambda v: a_run(optimizer=optim.adam(lambda count: v / (1 + count.astype(float)))), (0.01, 0.1)),
}  # fmt: skip

for case in OPTIMIZERS:
    defaults = {"learning_rate": 0.01, **case.hyper}
    for name, default in defaults.items():

        def make(v, case=case, name=name, defaults=defaults):
            return a_run(optimizer=case.ours(**{**defaults, name: v}))

        HYPER[f"{case.name}: {name}"] = (make, (default, 0.5 if default == 0 else 0.7 * default))


def after_steps(make, dtype=jnp.float64):
    """All that training leaves: the state, the losses, and predictions."""

    def f(value):
        run = make(value)
        labels = "cross_entropy" in getattr(run.loss, "func", run.loss).__name__
        data = Data(jnp.asarray(X, dtype), jnp.asarray(LABELS, jnp.int32) if labels else jnp.asarray(REAL, dtype))
        ts, log = run.steps(run.init(jax.random.key(0), data), data, STEPS)
        return ts._replace(key=()), log, run.evaluate(ts, data)

    return f


@pytest.mark.parametrize("name", HYPER)
def test_sweep_equals_the_loop_over_floats(name):
    make, values = HYPER[name]
    with jax.enable_x64(True):
        f = after_steps(make)
        swept, loop = jax.jit(lambda v: (jax.vmap(f)(v), [f(float(value)) for value in values]))(jnp.asarray(values))
        for i, one in enumerate(loop):
            member = jax.tree.map(lambda a: a[i], swept)  # noqa: B023
            chex.assert_trees_all_equal_shapes_and_dtypes(member, one)
            chex.assert_trees_all_close(member, one, rtol=1e-8, atol=1e-10)
        different = jax.tree.map(lambda a, b: bool(np.any(a != b)), *loop)
        assert any(jax.tree.leaves(different)), "the hyper-parameter does nothing"


@pytest.mark.parametrize("kind", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("name", HYPER)
def test_hyper_parameters_of_any_dtype_leave_the_run_in_its_own(name, kind):
    make, values = HYPER[name]
    with jax.enable_x64(True):
        f = after_steps(make, jnp.float32)
        traced = jax.eval_shape(f, jax.ShapeDtypeStruct((), kind))
        chex.assert_trees_all_equal_shapes_and_dtypes(traced, jax.eval_shape(lambda: f(values[0])))


def test_the_table_names_every_number_of_every_optimizer():
    """A hyper-parameter that is added to an optimizer is to be added to its case."""
    for case in OPTIMIZERS:
        made = getattr(case.ours, "func", case.ours)
        kinds = made.__annotations__
        numbers = {name for name, kind in kinds.items() if "float" in str(kind) or "Scalar" in str(kind)}
        assert numbers == {"learning_rate", *case.hyper}


def test_scaled_is_the_initialiser_times_the_factor():
    he = nn.initializers.he_normal()
    key, shape = jax.random.key(0), (3, 2)
    for dtype in (jnp.bfloat16, jnp.float32):
        w = nn.initializers.scaled(he, 0.5)(key, shape, dtype)
        assert w.dtype == dtype
        np.testing.assert_array_equal(w, 0.5 * he(key, shape, dtype))
    conv = nn.conv(2, 3, w_init=nn.initializers.scaled(he, 0.0)).init(key, jnp.ones((1, 5, 2)))[0]
    assert not conv["w"].any()


@pytest.mark.parametrize("factor", [-1.0, float("nan")])
def test_scaled_by_a_factor_out_of_range(factor):
    with pytest.raises(ValueError, match=rf"scaled: factor must be in \[0, inf\), got {factor:g}"):
        nn.initializers.scaled(nn.initializers.he_normal(), factor)
