"""Gradients of a whole run by its hyper-parameters: right, in little memory, and never NaN without a word."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import equations

from nnjax import losses, nn, optim, train
from nnjax.train.hypergradient import in_blocks
from nnjax.types import Data, TrainState


@pytest.fixture(autouse=True)
def quick_compiler():
    """The programs are many and small: XLA need not spend its time on making them fast."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


rng = np.random.default_rng(0)
X = rng.normal(size=(24, 3))
X[:, 2] = 0.0  # always, as a pixel in a corner
Y = np.sin(3 * X.sum(-1, keepdims=True))
VALIDATION = slice(12, None)


def examples(dtype=jnp.float64, rows=slice(0, 12)):
    return Data(jnp.asarray(X[rows], dtype), jnp.asarray(Y[rows], dtype))


def net(*layers):
    return nn.serial(nn.dense(3, bias=False), *layers, jnp.tanh, nn.dense(1, bias=False))


def start(run, dtype):
    """The state before the first step, whose draws cost no compilation."""
    generator, data = np.random.default_rng(1), examples(dtype)
    shapes = jax.eval_shape(lambda: run.init(jax.random.key(0), data))
    params = jax.tree.map(lambda a: jnp.asarray(generator.normal(size=a.shape), dtype), shapes.params)
    state = jax.tree.map(lambda a: jnp.ones(a.shape, dtype), shapes.state)
    return TrainState(jnp.zeros((), jnp.int32), params, state, run.optimizer.init(params), jax.random.key(0))


def validation_loss(make, n, *, batch_size=None, dtype=jnp.float64, init=start):
    """hyper-parameter -> loss on other data after n steps; `make` gives (network, optimizer)."""
    data, other = examples(dtype), examples(dtype, VALIDATION)

    def f(value):
        network, optimizer = make(value)
        run = train.Run(network, losses.squared_error, optimizer, batch_size)
        ts, _ = run.steps(init(run, dtype), data, n, remat=True)
        return run.evaluate(ts, other)["loss"]

    return f


def trained_by(make):
    return lambda value: (net(), make(value))


adam = partial(optim.adam, eps_root=1e-6)
adamw = partial(optim.adamw, eps_root=1e-6)
nadam = partial(optim.nadam, eps_root=1e-6)

# What makes the run from the hyper-parameter, its value, and the number of steps
HYPER = {
    "sgd: learning_rate": (trained_by(optim.sgd), 0.05, 25),
    "momentum: learning_rate": (trained_by(optim.momentum), 0.01, 23),
    "momentum: momentum": (trained_by(lambda v: optim.momentum(0.01, v)), 0.8, 20),
    "nesterov: momentum": (trained_by(lambda v: optim.nesterov(0.01, v)), 0.8, 20),
    "rmsprop: decay": (trained_by(lambda v: optim.rmsprop(0.01, v, eps=1e-4)), 0.9, 20),
    "adagrad: learning_rate": (trained_by(optim.adagrad), 0.1, 20),
    "adam: learning_rate": (trained_by(adam), 0.01, 50),
    "adam: b1": (trained_by(lambda v: adam(0.01, v)), 0.9, 20),
    "adam: b2": (trained_by(lambda v: adam(0.01, 0.9, v)), 0.99, 20),
    "nadam: b1": (trained_by(lambda v: nadam(0.01, v)), 0.9, 20),
    "adamw: weight_decay": (trained_by(lambda v: adamw(0.01, weight_decay=v)), 0.1, 20),
    "lion: learning_rate": (trained_by(optim.lion), 0.003, 20),
    "lion: weight_decay": (trained_by(lambda v: optim.lion(0.003, weight_decay=v)), 0.1, 20),
    "schedule": (trained_by(lambda v: optim.sgd(lambda count: v / (1 + count.astype(float)))), 0.1, 20),
    "clip": (trained_by(lambda v: optax.chain(optax.clip_by_global_norm(v), optim.momentum(0.02))), 0.5, 20),
    "batch_norm: eps": (lambda v: (net(nn.batch_norm(eps=v)), optim.sgd(0.05)), 0.1, 20),
    "batch_norm: decay": (lambda v: (net(nn.batch_norm(decay=v)), optim.sgd(0.05)), 0.8, 20),
    "batch_norm: learning_rate": (lambda v: (net(nn.batch_norm()), optim.sgd(v)), 0.05, 20),
    "layer_norm: eps": (lambda v: (net(nn.layer_norm(eps=v)), optim.sgd(0.05)), 0.1, 20),
}


def assert_right(f, value, step=1e-3):
    """The gradient is that of central differences of fourth order."""
    step = step * value
    at = value + jnp.array([0.0, -2.0, -1.0, 1.0, 2.0]) * step
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(f)))(at)  # one program for all, and a sweep of gradients
    numerical = (8 * (values[3] - values[2]) - (values[4] - values[1])) / (12 * step)
    assert abs(numerical) > 1e-6
    np.testing.assert_allclose(gradients[0], numerical, rtol=1e-6)


@pytest.mark.parametrize("name", HYPER)
def test_gradient_of_a_run_equals_central_differences(name):
    make, value, n = HYPER[name]
    with jax.enable_x64(True):
        assert_right(validation_loss(make, n), value)


def test_gradient_by_a_dropout_rate_is_that_with_the_mask_held():
    """A step so small that no mask changes."""
    with jax.enable_x64(True):
        assert_right(validation_loss(lambda v: (net(nn.dropout(v)), optim.sgd(0.01)), 20), 0.3, 1e-6)


def test_gradient_by_the_spread_of_the_first_weights_on_batches_of_the_stream():
    def make(factor):
        w_init = nn.initializers.scaled(nn.initializers.glorot_normal(), factor)
        return nn.serial(nn.dense(3, w_init=w_init), jnp.tanh, nn.dense(1, w_init=w_init)), optim.momentum(0.01)

    def init(run, dtype):
        return run.init(jax.random.key(0), examples(dtype))

    with jax.enable_x64(True):
        assert_right(validation_loss(make, 20, batch_size=4, init=init), 0.7)


@pytest.mark.parametrize(("n", "batch_size"), [(7, 4), (9, None)])
def test_blocks_are_the_same_steps(n, batch_size):
    """States, logs and gradients, for any number of steps."""
    with jax.enable_x64(True):
        data = examples()
        run = train.Run(net(nn.batch_norm(), nn.dropout(0.2)), losses.squared_error, adam(0.01), batch_size)
        ts = start(run, jnp.float64)

        def value(params, remat):
            after, log = run.steps(ts._replace(params=params), data, n, remat=remat)
            return log["loss"].sum() + run.evaluate(after, data)["loss"], (after._replace(key=()), log)

        both = jax.jit(lambda p: [jax.value_and_grad(value, has_aux=True)(p, remat) for remat in (False, True)])
        plain, blocks = both(ts.params)
        (_, (after, log)), _ = blocks
        assert int(after.step) == n
        assert log["loss"].shape == (n,)
        chex.assert_trees_all_equal_shapes_and_dtypes(plain, blocks)
        chex.assert_trees_all_close(plain, blocks, rtol=1e-9, atol=1e-12)


def test_blocks_go_on_where_the_last_one_stopped():
    def count(carry, n):
        return carry + n, carry + jnp.arange(n, dtype=jnp.int32)

    for n in (0, 1, 2, 3, 4, 5, 16, 17, 29):
        end, seen = in_blocks(count, jnp.zeros((), jnp.int32), n)
        assert end == n
        assert seen.tolist() == list(range(n))


def memory(n, *, remat):
    def f(rate):
        run = train.Run(nn.mlp([32], 1), losses.squared_error, adam(rate), None)
        ts, _ = run.steps(start(run, jnp.float32), examples(jnp.float32), n, remat=remat)
        return run.evaluate(ts, examples(jnp.float32))["loss"]

    return jax.jit(jax.grad(f)).lower(0.01).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_like_the_root_of_the_number_of_steps():
    few, more, many = (memory(n, remat=True) for n in (64, 256, 1024))
    assert more < 2.6 * few
    assert many < 2.6 * more
    assert memory(256, remat=False) > 8 * more


# Roots of zero -------------------------------------------------------------------------------------------------------

ROOTS = {
    "adam": (optim.adam, "eps_root > 0, as in adam(…, eps_root=1e-8)"),
    "adamw": (optim.adamw, "eps_root > 0, as in adamw(…, eps_root=1e-8)"),
    "nadam": (optim.nadam, "eps_root > 0, as in nadam(…, eps_root=1e-8)"),
    "adam, an array": (partial(optim.adam, eps_root=np.float32(0)), "eps_root > 0, as in adam(…, eps_root=1e-8)"),
    "rmsprop, eps outside": (partial(optim.rmsprop, eps_in_sqrt=False), "eps inside the root: eps_in_sqrt=True"),
    "rmsprop, no eps": (partial(optim.rmsprop, eps=0.0), "eps > 0;"),
    "adagrad, no eps": (partial(optim.adagrad, initial_accumulator_value=0.0, eps=0.0), "eps > 0 or initial_accumu"),
}
REMEDIED = {  # beside those of HYPER, where an input is always zero too
    "adam, an array": lambda rate: optim.adam(rate, eps_root=jnp.asarray(1e-8)),
    "rmsprop, initial scale": partial(optim.rmsprop, eps_in_sqrt=False, initial_scale=1.0),
    "adagrad, no eps": partial(optim.adagrad, eps=0.0),
    "adagrad, from 0": partial(optim.adagrad, initial_accumulator_value=0.0),
}
TRANSFORMS = {
    "grad": jax.grad,
    "jit": lambda f: jax.jit(jax.grad(f)),
    "jacfwd": jax.jacfwd,
    "vmap": lambda f: lambda rate: jax.vmap(jax.grad(f))(jnp.stack([rate, rate])),
}


def quick(optimizer, n=2):
    return validation_loss(trained_by(optimizer), n, dtype=jnp.float32)


@pytest.mark.parametrize(
    ("name", "transform"), [*((name, "grad") for name in ROOTS), *(("adam", transform) for transform in TRANSFORMS)]
)
def test_gradient_through_a_root_of_zero_is_refused(name, transform):
    make, remedy = ROOTS[name]
    with pytest.raises(ValueError, match="differentiating through the update needs ") as caught:
        TRANSFORMS[transform](quick(make))(jnp.asarray(0.01))
    assert str(caught.value).startswith(name.split(",")[0] + ": ")
    assert remedy in str(caught.value)


@pytest.mark.parametrize("name", REMEDIED)
def test_gradient_with_the_remedy_is_finite_where_gradients_are_always_zero(name):
    assert np.isfinite(jax.jit(jax.grad(quick(REMEDIED[name])))(0.01))


def test_without_the_guard_it_would_be_nan(monkeypatch):
    """What the error is for."""
    monkeypatch.setattr(optim._adam, "root_above", lambda *_: jnp.sqrt)
    assert np.isnan(jax.jit(jax.grad(quick(optim.adam)))(0.01))


def test_ordinary_training_is_not_refused():
    """Gradients of the loss alone, under jit, vmap over runs, scan and remat of the step."""
    data = examples(jnp.float32)

    def log(rate):
        run = train.Run(net(), losses.squared_error, optim.adam(rate), None)
        return run.steps(start(run, jnp.float32), data, 3, remat=True)[1]["loss"]

    assert np.isfinite(jax.jit(jax.vmap(log))(jnp.array([0.1, 0.2]))).all()


def test_gradient_that_does_not_pass_the_root_is_not_refused():
    optimizer, params = optim.adam(0.01), jnp.ones(3)

    def f(factor):
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        return (factor * updates).sum()

    np.testing.assert_allclose(jax.grad(f)(2.0), -0.03, rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "rmsprop, eps outside", "adagrad, no eps"])
def test_the_guard_costs_nothing(name, monkeypatch):
    """XLA makes the same program of it as of `jnp.sqrt`, with the same bits."""
    jax.config.update("jax_disable_most_optimizations", False)
    make, _ = ROOTS[name]
    params, grads = {"w": jnp.arange(8.0)}, {"w": jnp.linspace(-1, 1, 8)}

    def result():
        optimizer = make(0.01)

        def updates(state):
            return jax.lax.scan(lambda s, _: optimizer.update(grads, s, params)[::-1], state, length=5)

        many = jax.tree.map(lambda a: jnp.stack([a, a]), optimizer.init(params))
        program = jax.jit(jax.vmap(updates)).lower(many).compile()
        instructions = [line.split(", metadata=")[0] for line in program.as_text().splitlines() if " = " in line]
        return len(instructions), program(many)

    guarded = result()
    monkeypatch.setattr(getattr(optim, f"_{name.split(',')[0]}"), "root_above", lambda *_: jnp.sqrt)
    plain = result()
    assert guarded[0] == plain[0]
    chex.assert_trees_all_equal(guarded[1], plain[1])


def test_remat_is_off_by_default():
    data = examples(jnp.float32)
    run = train.Run(net(), losses.squared_error, optim.sgd(0.1), None)
    ts = start(run, jnp.float32)

    def primitives(**how):
        program = jax.make_jaxpr(lambda ts: run.steps(ts, data, 4, **how)[1])(ts)
        return {equation.primitive.name for equation in equations(program.jaxpr)}

    assert ["remat2" in names for names in (primitives(), primitives(remat=True))] == [False, True]
