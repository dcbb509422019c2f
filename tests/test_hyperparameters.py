"""Every hyper-parameter may be a traced array: a sweep under `jax.vmap` equals single runs with Python floats."""

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


def simple(key, shape, dtype):
    """An initializer that compiles quickly."""
    return jax.random.uniform(key, shape, dtype, -1.0, 1.0)


def around(*layers):
    return nn.serial(nn.dense(3, w_init=simple), *layers, jnp.tanh, nn.dense(2, w_init=simple))


LINEAR = nn.dense(2, bias=False, w_init=simple)


def a_run(network=LINEAR, *, loss=losses.squared_error, optimizer=None):
    return train.Run(network, loss, optimizer or optim.momentum(0.02), batch_size=None)


def trained_by(make):
    return lambda **hyper: a_run(optimizer=make(**hyper))


def in_chain(transformation):
    return a_run(optimizer=optax.chain(transformation, optim.momentum(0.1)))


# component: (hyper-parameters -> run, two values of each hyper-parameter)
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
    """Return the function hyper-parameters -> (final state, losses of the steps, evaluation)."""

    def f(hyper):
        run = make(**hyper)
        labels = "cross_entropy" in getattr(run.loss, "func", run.loss).__name__
        data = Data(jnp.asarray(X, dtype), jnp.asarray(LABELS, jnp.int32) if labels else jnp.asarray(REAL, dtype))
        ts, log = run.steps(run.init(jax.random.key(0), data), data, STEPS)
        return ts._replace(key=()), log, run.evaluate(ts, data)

    return f


@pytest.mark.parametrize("name", HYPER)
def test_sweep_equals_runs_with_python_floats(name):
    """Single runs at the first and at the second values; between them each hyper-parameter changes alone."""
    make, values = HYPER[name]
    first, second = ({key: pair[i] for key, pair in values.items()} for i in (0, 1))
    points = [first, second, *({**first, key: second[key]} for key in values)]
    with jax.enable_x64(True):
        f = after_steps(make)
        arrays = {key: jnp.asarray([point[key] for point in points]) for key in values}
        swept, single = jax.jit(lambda arrays: (jax.vmap(f)(arrays), [f(first), f(second)]))(arrays)
        members = [jax.tree.map(lambda a: a[i], swept) for i in range(len(points))]  # noqa: B023
        for member, run in zip(members, single, strict=False):
            chex.assert_trees_all_equal_shapes_and_dtypes(member, run)
            chex.assert_trees_all_close(member, run, rtol=1e-8, atol=1e-10)
        for point, member in zip(points[1:], members[1:], strict=True):
            same = jax.tree.map(lambda a, b: bool(np.all(a == b)), member, members[0])
            assert not all(jax.tree.leaves(same)), f"{point} has no effect"


@pytest.mark.parametrize("name", sorted(OURS))
def test_hyper_parameters_of_any_dtype_keep_the_dtypes_of_the_run(name):
    make, values = HYPER[name]
    with jax.enable_x64(True):
        f = after_steps(make, jnp.float32)
        floats = jax.eval_shape(lambda: f({key: pair[0] for key, pair in values.items()}))
        for dtype in ("float64", "bfloat16"):
            traced = jax.eval_shape(f, {key: jax.ShapeDtypeStruct((), dtype) for key in values})
            chex.assert_trees_all_equal_shapes_and_dtypes(traced, floats)


def test_the_table_names_every_number_of_every_optimizer():
    """A hyper-parameter that is added to an optimizer must be added to its case."""
    named: dict = {}
    for case in OPTIMIZERS:
        named.setdefault(getattr(case.ours, "func", case.ours), {"learning_rate"}).update(case.hyper)
    for function, names in named.items():
        assert {name for name, kind in function.__annotations__.items() if "float" in str(kind)} == names


@pytest.mark.parametrize(
    "make", [nn.mlp, lambda hidden, outputs, **rest: nn.residual_mlp(hidden[0], 2, outputs, **rest)]
)
def test_initial_parameters_do_not_depend_on_the_dropout_rate(make):
    """In a sweep of dropout rates, the member with rate 0 starts like the single run with rate 0."""
    starts = [
        make([3], 2, dropout=rate).init(jax.random.key(0), jnp.ones((1, 3))) for rate in (0.0, 0, 0.5, jnp.zeros(()))
    ]
    for start in starts:
        chex.assert_trees_all_equal(start, starts[0])


def test_scaled_is_the_initializer_times_the_factor():
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
