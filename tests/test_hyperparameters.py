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


def simple(key, shape, dtype):
    """An initialiser whose draws compile at once."""
    return jax.random.uniform(key, shape, dtype, -1.0, 1.0)


def around(*layers):
    return nn.serial(nn.dense(3, w_init=simple), *layers, jnp.tanh, nn.dense(2, w_init=simple))


LINEAR = nn.dense(2, bias=False, w_init=simple)


def a_run(network=LINEAR, *, loss=losses.squared_error, optimizer=None):
    return train.Run(network, loss, optimizer or optim.momentum(0.02), None)


def trained_by(make, **given):
    return lambda **hyper: a_run(optimizer=make(**{**given, **hyper}))


def in_chain(part):
    return a_run(optimizer=optax.chain(part, optim.momentum(0.1)))


# component: (hyper-parameters -> a run, two values of each hyper-parameter)
HYPER = {
    "dropout": (lambda rate: a_run(around(nn.dropout(rate))), {"rate": (0.5, 0.0)}),
    "mlp": (lambda dropout: a_run(nn.mlp([3], 2, dropout=dropout)), {"dropout": (0.5, 0.0)}),
    "residual_mlp": (
        lambda dropout: a_run(nn.residual_mlp(3, 1, 2, norm=None, dropout=dropout)), {"dropout": (0.5, 0.0)}),
    "batch_norm": (lambda decay, eps: a_run(around(nn.batch_norm(decay=decay, eps=eps))),
                   {"decay": (0.9, 0.0), "eps": (1e-5, 0.1)}),
    "layer_norm": (lambda eps: a_run(around(nn.layer_norm(eps=eps))), {"eps": (1e-5, 0.1)}),
    "scale": (lambda initial: a_run(around(nn.scale(initial))), {"initial": (0.0, 0.5)}),
    "scaled": (lambda factor: a_run(nn.dense(2, w_init=nn.initializers.scaled(simple, factor))),
               {"factor": (0.5, 0.0)}),
    "huber": (lambda delta: a_run(loss=partial(losses.huber, delta=delta)), {"delta": (1.0, 0.1)}),
    "cross_entropy": (
        lambda label_smoothing: a_run(loss=partial(losses.cross_entropy, label_smoothing=label_smoothing)),
        {"label_smoothing": (0.1, 0.0)}),
    "clip_by_global_norm": (
        lambda max_norm: in_chain(optax.clip_by_global_norm(max_norm)), {"max_norm": (1.0, 0.1)}),
    "clip": (lambda max_delta: in_chain(optax.clip(max_delta)), {"max_delta": (1.0, 0.1)}),
    "params_ema": (lambda decay: a_run(optimizer=optax.chain(optim.sgd(0.1), optim.params_ema(decay))),
                   {"decay": (0.9, 0.0)}),
    "schedule": (trained_by(lambda first: optim.sgd(lambda count: first / (1 + count.astype(float)))),
                 {"first": (0.1, 0.01)}),
}  # fmt: skip
OURS = set(HYPER) - {"clip", "clip_by_global_norm", "schedule"}

for case in OPTIMIZERS:
    if case.name.split(",")[-1] not in (" large eps", " eps_root", " initial scale"):  # the same with other values
        values = {"learning_rate": 0.01, **case.hyper}
        HYPER[case.name] = (
            trained_by(case.ours),
            {name: (value, 0.5 if value == 0 else 0.7 * value) for name, value in values.items()},
        )


def after_steps(make, dtype=jnp.float64):
    """hyper-parameters -> all that training leaves: the state, the losses, and the loss of prediction."""

    def f(hyper):
        run = make(**hyper)
        labels = "cross_entropy" in getattr(run.loss, "func", run.loss).__name__
        data = Data(jnp.asarray(X, dtype), jnp.asarray(LABELS, jnp.int32) if labels else jnp.asarray(REAL, dtype))
        ts, log = run.steps(run.init(jax.random.key(0), data), data, STEPS)
        return ts._replace(key=()), log, run.evaluate(ts, data)

    return f


@pytest.mark.parametrize("name", HYPER)
def test_sweep_equals_the_loop_over_floats(name):
    """All hyper-parameters at their first value, and then each at its second."""
    make, values = HYPER[name]
    first = {key: pair[0] for key, pair in values.items()}
    loop = [first, *({**first, key: pair[1]} for key, pair in values.items())]
    with jax.enable_x64(True):
        f = after_steps(make)
        points = {key: jnp.asarray([point[key] for point in loop]) for key in first}
        swept, ones = jax.jit(lambda points: (jax.vmap(f)(points), [f(point) for point in loop]))(points)
        for i, (point, one) in enumerate(zip(loop, ones, strict=True)):
            member = jax.tree.map(lambda a: a[i], swept)  # noqa: B023
            chex.assert_trees_all_equal_shapes_and_dtypes(member, one)
            chex.assert_trees_all_close(member, one, rtol=1e-8, atol=1e-10)
            if i:
                same = jax.tree.map(lambda a, b: bool(np.all(a == b)), one, ones[0])
                assert not all(jax.tree.leaves(same)), f"{point} does nothing"


@pytest.mark.parametrize("kind", ["float64", "bfloat16"])
@pytest.mark.parametrize("name", sorted(OURS))
def test_hyper_parameters_of_any_dtype_leave_the_run_in_its_own(name, kind):
    make, values = HYPER[name]
    with jax.enable_x64(True):
        f = after_steps(make, jnp.float32)
        traced = jax.eval_shape(f, {key: jax.ShapeDtypeStruct((), kind) for key in values})
        floats = jax.eval_shape(lambda: f({key: pair[0] for key, pair in values.items()}))
        chex.assert_trees_all_equal_shapes_and_dtypes(traced, floats)


def test_the_table_names_every_number_of_every_optimizer():
    """A hyper-parameter that is added to an optimizer is to be added to its case."""
    for case in OPTIMIZERS:
        kinds = getattr(case.ours, "func", case.ours).__annotations__
        numbers = {name for name, kind in kinds.items() if "float" in str(kind)}
        assert numbers == {"learning_rate", *case.hyper}


@pytest.mark.parametrize(
    "make", [nn.mlp, lambda hidden, outputs, **rest: nn.residual_mlp(hidden[0], 2, outputs, **rest)]
)
def test_a_network_has_one_form_and_one_start_whatever_its_dropout_rate(make):
    """The parameters of a sweep that has the rate 0 among others are those of the run at rate 0."""
    starts = [
        make([3], 2, dropout=rate).init(jax.random.key(0), jnp.ones((1, 3))) for rate in (0.0, 0, 0.5, jnp.zeros(()))
    ]
    for start in starts:
        chex.assert_trees_all_equal(start, starts[0])


def test_scaled_is_the_initialiser_times_the_factor():
    he = nn.initializers.he_normal()
    key, shape = jax.random.key(0), (3, 2)
    for dtype in (jnp.bfloat16, jnp.float32):
        w = nn.initializers.scaled(he, 0.5)(key, shape, dtype)
        assert w.dtype == dtype
        np.testing.assert_array_equal(w, 0.5 * he(key, shape, dtype))


@pytest.mark.parametrize("factor", [-1.0, float("nan")])
def test_scaled_by_a_factor_out_of_range(factor):
    with pytest.raises(ValueError, match=rf"scaled: factor must be in \[0, inf\), got {factor:g}"):
        nn.initializers.scaled(nn.initializers.he_normal(), factor)
