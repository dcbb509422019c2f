"""Gradients of a whole run by its hyper-parameters: correct, in little memory, and never silently NaN."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import equations

from nnjax import losses, nn, optim, train
from nnjax.train._blocks import scan_in_blocks
from nnjax.types import Data, TrainState

rng = np.random.default_rng(0)
X = rng.normal(size=(24, 3))
X[:, 2] = 0.0  # an input that is always 0, like a pixel in a corner
Y = np.sin(3 * X.sum(-1, keepdims=True))
VALIDATION = slice(12, None)


def examples(dtype=jnp.float64, rows=slice(0, 12)):
    return Data(jnp.asarray(X[rows], dtype), jnp.asarray(Y[rows], dtype))


def net(*layers):
    return nn.serial(nn.dense(3, bias=False), *layers, jnp.tanh, nn.dense(1, bias=False))


def start(run, dtype):
    """Return an initial state that needs no compilation: NumPy draws the parameters."""
    generator, data = np.random.default_rng(1), examples(dtype)
    shapes = jax.eval_shape(lambda: run.init(jax.random.key(0), data))
    params = jax.tree.map(lambda a: jnp.asarray(generator.normal(size=a.shape), dtype), shapes.params)
    state = jax.tree.map(lambda a: jnp.ones(a.shape, dtype), shapes.state)
    return TrainState(jnp.zeros((), jnp.int32), params, state, run.optimizer.init(params), jax.random.key(0))


def validation_loss(make, n, *, batch_size=None, dtype=jnp.float64, init=start):
    """Return the function hyper-parameters -> validation loss after n steps; `make` returns (network, optimizer)."""
    data, other = examples(dtype), examples(dtype, VALIDATION)

    def f(values):
        network, optimizer = make(values)
        run = train.Run(network, losses.squared_error, optimizer, batch_size=batch_size)
        ts, _ = run.steps(init(run, dtype), data, n, remat=True)
        return run.evaluate(ts, other)["loss"]

    return f


def trained_by(make):
    return lambda values: (net(), make(values))


adam = partial(optim.adam, eps_root=1e-6)
adamw = partial(optim.adamw, eps_root=1e-6)
nadam = partial(optim.nadam, eps_root=1e-6)

# (network, optimizer) as a function of a dict of hyper-parameters, their values, and the number of steps
HYPER = {
    "sgd": (trained_by(lambda h: optim.sgd(h["rate"])), {"rate": 0.05}, 25),
    "momentum": (trained_by(lambda h: optim.momentum(h["rate"], h["momentum"])), {"rate": 0.01, "momentum": 0.9}, 23),
    "nesterov": (trained_by(lambda h: optim.nesterov(0.01, h["momentum"])), {"momentum": 0.8}, 20),
    "rmsprop": (trained_by(lambda h: optim.rmsprop(0.01, h["decay"], eps=1e-4)), {"decay": 0.9}, 20),
    "adagrad": (trained_by(lambda h: optim.adagrad(h["rate"])), {"rate": 0.1}, 20),
    "adam": (
        trained_by(lambda h: adam(h["rate"], h["b1"], h["b2"])), {"rate": 0.01, "b1": 0.9, "b2": 0.99}, 50),
    "nadam": (trained_by(lambda h: nadam(0.01, h["b1"])), {"b1": 0.9}, 20),
    "adamw": (trained_by(lambda h: adamw(0.01, weight_decay=h["weight_decay"])), {"weight_decay": 0.1}, 20),
    "lion": (
        trained_by(lambda h: optim.lion(h["rate"], weight_decay=h["weight_decay"])),
        {"rate": 0.003, "weight_decay": 0.1}, 20),
    "schedule": (trained_by(lambda h: optim.sgd(lambda count: h["rate"] / (1 + count.astype(float)))),
                 {"rate": 0.1}, 20),
    "clip": (trained_by(lambda h: optax.chain(optax.clip_by_global_norm(h["norm"]), optim.momentum(0.02))),
             {"norm": 0.5}, 20),
    "batch_norm": (lambda h: (net(nn.batch_norm(decay=h["decay"], eps=h["eps"])), optim.sgd(h["rate"])),
                   {"decay": 0.8, "eps": 0.1, "rate": 0.05}, 20),
    "layer_norm": (lambda h: (net(nn.layer_norm(eps=h["eps"])), optim.sgd(0.05)), {"eps": 0.1}, 20),
}  # fmt: skip


def assert_equals_differences(f, values, relative_step=1e-3):
    """The gradient equals central differences of fourth order, for each hyper-parameter."""
    center = np.array(list(values.values()))
    shifts = np.array([-2.0, -1.0, 1.0, 2.0])
    steps = relative_step * np.diag(center)
    points = np.stack([center, *(center + shift * step for step in steps for shift in shifts)])
    at = dict(zip(values, jnp.asarray(points).T, strict=True))
    losses, gradients = jax.jit(jax.vmap(jax.value_and_grad(f)))(at)  # one program, also a sweep of gradients
    for i, name in enumerate(values):
        l2, l1, r1, r2 = losses[1 + 4 * i : 5 + 4 * i]
        numerical = (8 * (r1 - l1) - (r2 - l2)) / (12 * steps[i, i])
        assert abs(numerical) > 1e-6
        np.testing.assert_allclose(gradients[name][0], numerical, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", HYPER)
def test_gradient_of_a_run_equals_central_differences(name):
    make, values, n = HYPER[name]
    with jax.enable_x64(True):
        assert_equals_differences(validation_loss(make, n), values)


def test_gradient_by_a_dropout_rate_treats_the_mask_as_constant():
    """The step of the differences is so small that no mask changes."""
    with jax.enable_x64(True):
        loss = validation_loss(lambda h: (net(nn.dropout(h["rate"])), optim.sgd(0.01)), 20)
        assert_equals_differences(loss, {"rate": 0.3}, 1e-6)


def test_gradient_by_the_scale_of_the_initial_weights_on_batches_of_the_stream():
    def make(values):
        w_init = nn.initializers.scaled(nn.initializers.glorot_normal(), values["factor"])
        return nn.serial(nn.dense(3, w_init=w_init), jnp.tanh, nn.dense(1, w_init=w_init)), optim.momentum(0.01)

    def init(run, dtype):
        return run.init(jax.random.key(0), examples(dtype))

    with jax.enable_x64(True):
        assert_equals_differences(validation_loss(make, 20, batch_size=4, init=init), {"factor": 0.7})


@pytest.mark.parametrize(("n", "batch_size"), [(7, 4), (9, None)])
def test_blocks_are_the_same_steps(n, batch_size):
    """States, logs and gradients are the same with and without remat."""
    with jax.enable_x64(True):
        data = examples()
        run = train.Run(net(nn.batch_norm(), nn.dropout(0.2)), losses.squared_error, adam(0.01), batch_size=batch_size)
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


def test_blocks_continue_where_the_last_one_stopped():
    def count(carry, n):
        return carry + n, carry + jnp.arange(n, dtype=jnp.int32)

    for n in (0, 1, 2, 3, 4, 5, 16, 17, 29):
        end, seen = scan_in_blocks(count, jnp.zeros((), jnp.int32), n)
        assert end == n
        assert seen.tolist() == list(range(n))


def memory(n, *, remat):
    def f(rate):
        run = train.Run(nn.mlp([32], 1), losses.squared_error, adam(rate), batch_size=None)
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
REMEDIED = {  # those of HYPER have an input that is always zero too
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
    """The error prevents this."""
    monkeypatch.setattr(optim._adam, "root_above", lambda *_: jnp.sqrt)
    assert np.isnan(jax.jit(jax.grad(quick(optim.adam)))(0.01))


def test_ordinary_training_is_not_refused():
    """Gradients of the loss alone, under jit, vmap over runs, scan and remat of the step."""
    data = examples(jnp.float32)

    def log(rate):
        run = train.Run(net(), losses.squared_error, optim.adam(rate), batch_size=None)
        return run.steps(start(run, jnp.float32), data, 3, remat=True)[1]["loss"]

    assert np.isfinite(jax.jit(jax.vmap(log))(jnp.array([0.1, 0.2]))).all()


def test_gradient_that_does_not_pass_the_root_is_not_refused():
    optimizer, params = optim.adam(0.01), jnp.ones(3)

    def f(factor):
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        return (factor * updates).sum()

    np.testing.assert_allclose(jax.grad(f)(2.0), -0.03, rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "rmsprop, eps outside", "adagrad, no eps"])
def test_the_guard_costs_nothing(name, monkeypatch, optimizing_compiler):
    """XLA compiles it to the same program as `jnp.sqrt`, with the same bits."""
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
    run = train.Run(net(), losses.squared_error, optim.sgd(0.1), batch_size=None)
    ts = start(run, jnp.float32)

    def primitives(**how):
        program = jax.make_jaxpr(lambda ts: run.steps(ts, data, 4, **how)[1])(ts)
        return {equation.primitive.name for equation in equations(program.jaxpr)}

    assert ["remat2" in names for names in (primitives(), primitives(remat=True))] == [False, True]
