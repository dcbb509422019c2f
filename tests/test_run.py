"""The pure run: its step against the formula, its order of data, and the transforms that it is made for."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from train_runs import DATA, NET, X, Y, assert_equal, make_run

from nnjax import data, losses, metrics, nn, optim, train
from nnjax.train.run import SHUFFLE_STREAM
from nnjax.types import Data

PLAIN = nn.serial(nn.dense(5), jnp.tanh, nn.dense(2))
LINEAR = nn.dense(2)


def test_step_is_the_formula():
    """One step of plain descent, written out with NumPy for a linear network."""
    net, rate = nn.dense(1), 0.1
    run = train.Run(net, losses.squared_error, optim.sgd(rate), batch_size=20)
    y = X[:, :1] * 2
    ts = run.init(jax.random.key(0), Data(X, y))
    after, log = run.step(ts, Data(X, y))
    w, b = np.asarray(ts.params["w"]), np.asarray(ts.params["b"])
    error = np.asarray(X) @ w + b - np.asarray(y)
    np.testing.assert_allclose(log["loss"], np.mean(error**2), rtol=1e-5)
    np.testing.assert_allclose(after.params["w"], w - rate * 2 * np.asarray(X).T @ error / 20, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.params["b"], b - rate * 2 * error.mean(0), rtol=1e-4, atol=1e-6)
    assert int(after.step) == 1


def test_init_follows_from_the_key_alone():
    run = make_run()
    assert_equal(run.init(jax.random.key(3), DATA), run.init(jax.random.key(3), DATA))
    one, other = (run.init(jax.random.key(k), DATA).params[0]["w"] for k in (3, 4))
    assert not np.allclose(one, other)


def test_init_reads_shapes_only():
    run = make_run()
    shapes = jax.eval_shape(lambda: DATA)
    assert_equal(run.init(jax.random.key(3), shapes), run.init(jax.random.key(3), DATA))


def test_legacy_key_is_accepted():
    ts = make_run().init(jax.random.PRNGKey(3), DATA)
    assert_equal(ts, make_run().init(jax.random.key(3), DATA))


def test_steps_are_steps_on_batch_indices():
    """`steps` sees the rows that `batch_indices` names for the run's shuffle key, and nothing else."""
    run = make_run(PLAIN)
    ts = jax.jit(run.init)(jax.random.key(0), DATA)
    scanned, log = jax.jit(run.steps, static_argnames="n")(ts, DATA, n=7)
    step = jax.jit(run.step)
    key = jax.random.fold_in(ts.key, SHUFFLE_STREAM)
    for i in range(7):
        rows = data.batch_indices(key, i, 20, 4)
        ts, one = step(ts, Data(X[rows], Y[rows]))
        np.testing.assert_allclose(log["loss"][i], one["loss"], rtol=1e-5)
    chex.assert_trees_all_close(scanned.params, ts.params, rtol=1e-4, atol=1e-6)


def test_every_example_is_seen_once_per_epoch():
    run = make_run()
    ts = run.init(jax.random.key(0), DATA)
    rows = np.asarray(run.rows(ts.key, ts.step, 20, 15)).reshape(3, 20)
    assert [sorted(epoch) for epoch in rows.tolist()] == [list(range(20))] * 3
    assert not (rows[0] == rows[1]).all()


def test_steps_continue_from_the_state():
    run = make_run()
    steps = jax.jit(run.steps, static_argnames="n")
    ts = run.init(jax.random.key(0), DATA)
    whole, log = steps(ts, DATA, n=8)
    half, first = steps(ts, DATA, n=4)
    rest, second = steps(half, DATA, n=4)
    np.testing.assert_allclose(log["loss"], jnp.concatenate([first["loss"], second["loss"]]), rtol=1e-4)
    assert int(rest.step) == int(whole.step) == 8


def test_full_batch_in_stored_order():
    run = make_run(LINEAR, batch_size=None)
    ts = run.init(jax.random.key(0), DATA)
    scanned, log = run.steps(ts, DATA, 1)
    stepped, one = run.step(ts, DATA)
    np.testing.assert_allclose(log["loss"][0], one["loss"], rtol=1e-6)
    chex.assert_trees_all_close(scanned.params, stepped.params, rtol=1e-5, atol=1e-7)


def test_dropout_draws_anew_at_each_step():
    run = make_run(nn.serial(nn.dense(50), nn.dropout(0.5), nn.dense(2)), optim.sgd(0.0))
    ts = run.init(jax.random.key(0), DATA)
    ts, first = run.step(ts, DATA)
    ts, second = run.step(ts, DATA)
    assert float(first["loss"]) != float(second["loss"])


def test_vmap_over_keys_is_an_ensemble():
    run = make_run()
    keys = jax.random.split(jax.random.key(0), 3)
    init, step = jax.jit(run.init), jax.jit(run.step)
    many = jax.vmap(init, in_axes=(0, None))(keys, DATA)
    stepped, log = jax.vmap(step, in_axes=(0, None))(many, DATA)
    assert log["loss"].shape == (3,)
    for i in range(3):
        alone, one = step(init(keys[i], DATA), DATA)
        np.testing.assert_allclose(log["loss"][i], one["loss"], rtol=1e-5)
        member = jax.tree.map(lambda a, i=i: a[i], stepped.state)
        chex.assert_trees_all_close(member, alone.state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_an_ensemble_lowers_for_accelerators(platform):
    net = nn.serial(
        nn.conv(4, 3, bias=False),
        nn.batch_norm(),
        jax.nn.relu,
        nn.max_pool(2),
        nn.flatten(),
        nn.dropout(0.1),
        nn.dense(3),
    )
    run = train.Run(net, losses.cross_entropy, optim.adam(1e-3), batch_size=4)
    images = data.Data(jnp.ones((8, 6, 6, 1)), jnp.zeros(8, jnp.int32))
    ts = jax.vmap(run.init, in_axes=(0, None))(jax.random.split(jax.random.key(0), 2), images)
    steps = jax.jit(jax.vmap(partial(run.steps, n=2), in_axes=(0, None)))
    assert "while" in steps.trace(ts, images).lower(lowering_platforms=(platform,)).as_text()


def test_vmap_over_traced_hyper_parameters_is_a_sweep():
    """The run is built inside, from traced values: learning rate, decay, dropout rate, label smoothing."""

    def final_loss(rate, b1, dropout, smoothing):
        net = nn.serial(nn.dense(5), jax.nn.relu, nn.dropout(dropout), nn.dense(2))
        loss = partial(losses.cross_entropy, label_smoothing=smoothing)
        run = train.Run(net, loss, optim.adam(rate, b1=b1), batch_size=4)
        ts, _ = run.steps(run.init(jax.random.key(0), DATA), DATA, 5)
        return run.evaluate(ts, DATA)["loss"]

    points = [jnp.array(v) for v in ([1e-3, 1e-1], [0.9, 0.5], [0.0, 0.5], [0.0, 0.1])]
    swept = jax.jit(jax.vmap(final_loss))(*points)
    for i in range(2):
        plain = [float(v[i]) for v in points]
        alone = jax.jit(lambda plain=plain: final_loss(*plain))()
        np.testing.assert_allclose(swept[i], alone, rtol=1e-3)


def test_gradient_through_a_run():
    """A run is differentiable in its hyper-parameters."""
    with jax.enable_x64(True):
        x = np.asarray(X, np.float64)
        y = (x.sum(-1, keepdims=True) > 0).astype(np.float64)

        def final_loss(rate):
            run = train.Run(
                nn.serial(nn.dense(4), jnp.tanh, nn.dense(1)), losses.squared_error, optim.momentum(rate), batch_size=4
            )
            ts, _ = run.steps(run.init(jax.random.key(0), Data(x, y)), Data(x, y), 6)
            return run.evaluate(ts, Data(x, y))["loss"]

        step, loss = 1e-5, jax.jit(final_loss)
        numeric = (loss(0.05 + step) - loss(0.05 - step)) / (2 * step)
        np.testing.assert_allclose(jax.jit(jax.grad(final_loss))(0.05), numeric, rtol=1e-5)


@pytest.mark.parametrize("weights", [None, jnp.array([1.0, 0.0, 2.0, 0.5] * 5)])
def test_micro_batches_have_the_gradient_of_the_batch(weights):
    whole, parts = (make_run(PLAIN, optim.sgd(0.1), 20, micro_batches=k) for k in (1, 5))
    examples = Data(X, Y, weights)
    ts = whole.init(jax.random.key(0), examples)
    a, log_a = whole.step(ts, examples)
    b, log_b = parts.step(ts, examples)
    np.testing.assert_allclose(log_a["loss"], log_b["loss"], rtol=1e-6)
    chex.assert_trees_all_close(a.params, b.params, rtol=1e-5, atol=1e-7)


def test_micro_batches_draw_each_for_themselves():
    """Equal rows in two parts would have equal gradients if both parts dropped the same units."""
    net = nn.serial(nn.dropout(0.5), nn.dense(2, bias=False))
    run = make_run(net, optim.sgd(0.1), 2, micro_batches=2)
    examples = Data(jnp.ones((2, 64)), jnp.zeros(2, jnp.int32))
    ts = run.init(jax.random.key(0), examples)
    after, _ = run.step(ts, examples)
    moves = np.abs(after.params[1]["w"] - ts.params[1]["w"])[:, 0]
    assert len(np.unique(moves.round(6))) > 2  # a unit that was kept in neither, in one, or in both parts


def test_losses_of_16_bits_are_summed_in_32():
    """A sum in bfloat16 would be off by up to a percent."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(999, 2)), jnp.bfloat16), jnp.asarray(rng.integers(0, 2, 999))
    run = make_run(nn.dense(2), optim.sgd(0.1), None)
    ts = run.init(jax.random.key(0), Data(x, y))
    _, log = run.step(ts, Data(x, y))
    single = np.float32(losses.cross_entropy(nn.dense(2).apply(ts.params, (), x, train=True)[0], y))
    np.testing.assert_allclose(log["loss"], single.mean(), rtol=1e-4)
    np.testing.assert_allclose(run.evaluate(ts, Data(x, y))["loss"], single.mean(), rtol=1e-4)


def test_weights_count_examples():
    """Integer weights are repetitions: Σ w·l / Σ w."""
    run = make_run(PLAIN, optim.sgd(0.1), None)
    weights = jnp.array([2.0, 1.0, 0.0, 3.0] * 5)
    repeated = np.repeat(np.arange(20), np.asarray(weights).astype(int))
    ts = run.init(jax.random.key(0), DATA)
    a, log_a = run.step(ts, Data(X, Y, weights))
    b, log_b = run.step(ts, Data(X[repeated], Y[repeated]))
    np.testing.assert_allclose(log_a["loss"], log_b["loss"], rtol=1e-5)
    chex.assert_trees_all_close(a.params, b.params, rtol=1e-5, atol=1e-7)


def test_weights_of_zero_change_nothing():
    run = make_run(nn.dense(2), optim.sgd(0.1), None)
    ts = run.init(jax.random.key(0), DATA)
    after, log = run.step(ts, Data(X, Y, jnp.zeros(20)))
    assert float(log["loss"]) == 0
    chex.assert_trees_all_equal(after.params, ts.params)


def test_optax_and_ours_go_the_same_way():
    runs = [make_run(PLAIN, optimizer) for optimizer in (optim.adam(1e-2), optax.adam(1e-2))]
    with jax.numpy_dtype_promotion("standard"):  # optax is not written for the strict mode
        a, b = (jax.jit(lambda run=run: run.steps(run.init(jax.random.key(0), DATA), DATA, 3)[0])() for run in runs)
    chex.assert_trees_all_close(a.params, b.params, rtol=1e-4, atol=1e-6)


def test_clipping_freezing_and_averaging_are_optax_chains():
    frozen = (True, False, False, False, False)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optim.sgd(0.1), optax.freeze(frozen), optim.params_ema(0.5))
    run = make_run(optimizer=optimizer)
    ts = run.init(jax.random.key(0), DATA)
    after, _ = run.steps(ts, DATA, 3)
    chex.assert_trees_all_equal(after.params[0], ts.params[0])
    assert not np.allclose(after.params[4]["w"], ts.params[4]["w"])
    average = optim.averaged(after.opt_state)
    assert not np.allclose(average[4]["w"], after.params[4]["w"])
    assert run.evaluate(after._replace(params=average), DATA)["loss"] > 0


def _scaled(optimizer):
    return optax.chain(optax.clip_by_global_norm(1.0), optimizer)


WRAPPERS = {
    "sam": optax.contrib.sam(optim.sgd(0.1), optim.sgd(0.05)),
    "schedule_free": optax.contrib.schedule_free(optim.sgd(0.1), 0.1),
    "reduce_on_plateau": optax.chain(optim.adam(1e-2), optax.contrib.reduce_on_plateau()),
    "lbfgs without a line search": optax.lbfgs(0.01, linesearch=None),
    "inject_hyperparams": optax.inject_hyperparams(optim.adam)(learning_rate=optax.linear_schedule(1e-2, 0.0, 9)),
    "MultiSteps": optax.MultiSteps(optim.adam(1e-2), 2),
    "polyak_sgd": optax.polyak_sgd(),
    "two averages": optax.chain(optim.sgd(0.1), optim.params_ema(0.9), optim.params_ema(0.5)),
}
MORE_ARGUMENTS = {
    "sam with a gradient function": (optax.contrib.sam(optim.sgd(0.1), optim.sgd(0.05), opaque_mode=True), "SAMState"),
    "lookahead": (optax.lookahead(optim.sgd(0.1), 5, 0.5), "LookaheadState"),
    "lookahead in a chain": (_scaled(optax.lookahead(optim.sgd(0.1), 5, 0.5)), "EmptyState, LookaheadState"),
    "sophia": (optax.contrib.sophia(0.01), "SophiaState"),
    "private": (
        _scaled(optax.contrib.differentially_private_aggregate(1.0, 0.1, key=0)),
        "EmptyState, DifferentiallyPrivateAggregateState",
    ),
    "updates of another shape": (optax.stateless(lambda u, p: jax.tree.map(lambda leaf: leaf.sum(0), u)), "EmptyState"),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_of_optax_learn(name):
    with jax.numpy_dtype_promotion("standard"):
        run = make_run(PLAIN, WRAPPERS[name])
        ts = run.init(jax.random.key(0), DATA)
        end, _ = jax.jit(run.steps, static_argnames="n")(ts, DATA, n=20)
        assert run.evaluate(end, DATA)["loss"] < run.evaluate(ts, DATA)["loss"]


def test_modules_of_other_libraries_are_refused_with_the_way_to_use_them():
    linen, torch = pytest.importorskip("flax.linen"), pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"Run: Dense is a Flax module; wrap it, as in interop\.flax\.from_linen"):
        train.Run(linen.Dense(2), losses.squared_error, optim.sgd(0.1), batch_size=2)
    with pytest.raises(TypeError, match=r"serial: Linear is a PyTorch module; .*interop\.torch\.import_weights"):
        nn.serial(torch.nn.Linear(2, 2))


def test_modules_whose_weights_nothing_would_train_are_refused():
    nnx, eqx = pytest.importorskip("flax.nnx"), pytest.importorskip("equinox")

    class Mine(nnx.Module):
        def __call__(self, x):
            return x

    for module in (nnx.Linear(2, 2, rngs=nnx.Rngs(0)), Mine()):
        with pytest.raises(
            TypeError, match=rf"Run: {type(module).__name__} is an nnx module.*interop\.flax\.from_nnx\(lam"
        ):
            train.Run(module, losses.squared_error, optim.sgd(0.1), batch_size=2)
    linear = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    with pytest.raises(
        TypeError, match=r"serial: Linear is a module of Equinox.*interop\.equinox\.from_module\(lambda key"
    ):
        nn.serial(linear)
    for function in (eqx.nn.Lambda(jax.nn.relu), eqx.filter_jit(jax.nn.relu), nnx.relu, nnx.jit(nnx.relu)):
        assert nn.serial(function).apply(((),), ((),), jnp.array([-1.0, 2.0]), train=True)[0].tolist() == [0, 2]


def test_a_train_state_in_place_of_parameters_is_named():
    run = make_run(PLAIN, optim.adam(0.1))
    ts = run.init(jax.random.key(0), DATA)
    with pytest.raises(TypeError, match=r"predict: params must fit .*; unexpected: key, .*; pass ts\.params"):
        run.predict(ts, ts.state, DATA.x)


@pytest.mark.parametrize("name", MORE_ARGUMENTS)
def test_optimizers_that_need_more_arguments_are_refused_by_name(name):
    optimizer, state = MORE_ARGUMENTS[name]
    message = f"Run: the optimizer with the state {state}.* failed on the call update.*write the loop by hand"
    with jax.numpy_dtype_promotion("standard"), pytest.raises(ValueError, match=message):
        make_run(PLAIN, optimizer).init(jax.random.key(0), DATA)


@pytest.mark.parametrize("make", [optim.sgd, optim.adam, optax.sgd])
def test_complex_parameters_descend(make):
    """`jax.grad` gives the conjugate of the direction."""
    goal = 2 - 3j
    net = nn.Layer(
        "z",
        lambda key, x: (jnp.zeros((), jnp.complex64), ()),
        lambda z, s, x, *, train, key=None: (jnp.broadcast_to(jnp.abs(z - goal) ** 2, (len(x),)), s),
    )
    run = train.Run(net, lambda prediction, y: prediction, make(0.05), batch_size=None)
    ts = run.init(jax.random.key(0), DATA)
    with jax.numpy_dtype_promotion("standard"):
        end, _ = jax.jit(run.steps, static_argnames="n")(ts, DATA, n=200)
    np.testing.assert_allclose(end.params, goal, rtol=1e-3)


def test_an_optimizer_that_reads_the_loss_gets_it():
    run = make_run(optimizer=optax.contrib.reduce_on_plateau(patience=1, rtol=0.0, atol=100.0))
    with jax.numpy_dtype_promotion("standard"):
        ts, _ = run.steps(run.init(jax.random.key(0), DATA), DATA, 3)
    assert float(optax.tree.get(ts.opt_state, "scale")) < 1


def test_evaluate_is_the_mean_over_all_examples(monkeypatch):
    run = make_run(metrics=(metrics.accuracy, metrics.nll))
    ts = run.init(jax.random.key(0), DATA)
    whole = run.evaluate(ts, DATA)
    for batch in (7, 10, 20):  # with and without a rest
        monkeypatch.setattr("nnjax.train._blocks.ROWS", batch)
        in_parts = run.evaluate(ts, DATA)
        chex.assert_trees_all_close(whole, in_parts, rtol=1e-6)
    np.testing.assert_allclose(whole["loss"], whole["nll"], rtol=1e-6)
    assert whole["accuracy"] == (np.asarray(run.predict(ts.params, ts.state, X)).argmax(-1) == np.asarray(Y)).mean()


def test_nothing_recompiles():
    run = make_run()
    step = jax.jit(chex.assert_max_traces(run.step, n=1))
    ts = run.init(jax.random.key(0), DATA)
    for i in range(3):
        ts, _ = step(ts, Data(X[i : i + 4], Y[i : i + 4]))


def test_pytrees_of_inputs():
    """A network with two inputs is a function of a dictionary."""
    both = nn.branch(lambda x: x["a"], lambda x: x["b"], merge=lambda ys: jnp.concatenate(ys, -1))
    run = train.Run(nn.serial(both, nn.dense(2)), losses.cross_entropy, optim.sgd(0.1), batch_size=4)
    examples = Data({"a": X, "b": X[:, :1]}, Y)
    ts, _ = run.steps(run.init(jax.random.key(0), examples), examples, 2)
    assert ts.params[1]["w"].shape == (4, 2)


MISTAKES = {
    "no loss function": (
        lambda: train.Run(NET, None, optim.sgd(0.1), batch_size=4),
        TypeError,
        "needs a loss or an objective",
    ),
    "no optimizer": (lambda: make_run(optimizer="adam"), TypeError, r"optim\.adam\(1e-3\), got 'adam'"),
    "batch of zero": (lambda: make_run(batch_size=0), ValueError, "batch_size must be ≥ 1, got 0"),
    "micro-batches": (
        lambda: make_run(batch_size=4, micro_batches=3),
        ValueError,
        "micro_batches 3 must divide batch_size 4",
    ),
    "int as key": (lambda: make_run().init(0, DATA), TypeError, r"use jax\.random\.key\(0\)"),
    "many keys": (
        lambda: make_run().init(jax.random.split(jax.random.key(0), 2), DATA),
        ValueError,
        "expected one key, got keys of shape",
    ),
    "line search": (
        lambda: make_run(optimizer=optax.lbfgs()).init(jax.random.key(0), DATA),
        ValueError,
        "line search",
    ),
    "mean in the loss": (
        lambda: train.Run(NET, lambda p, t: losses.cross_entropy(p, t).mean(), optim.sgd(0.1), batch_size=4).init(
            jax.random.key(0), DATA
        ),
        ValueError,
        r"one number per example, \(4,\), got \(\); the run takes the mean itself",
    ),
    "shapes of the loss": (
        lambda: train.Run(nn.dense(1), losses.squared_error, optim.sgd(0.1), batch_size=4).init(
            jax.random.key(0), DATA
        ),
        ValueError,
        r"must have the same shape, got \(4, 1\) and \(4,\)",
    ),
    "no data": (lambda: make_run().init(jax.random.key(0), X), TypeError, r"pair \(x, y\)"),
    "batch of one": (
        lambda: make_run(batch_size=1).steps(make_run(batch_size=1).init(jax.random.key(0), DATA), DATA, 1),
        ValueError,
        "train=True needs at least 2 values of each feature",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    call, kind, message = MISTAKES[name]
    with pytest.raises(kind, match=message):
        call()


def test_errors_carry_their_place():
    with pytest.raises(ValueError, match="even size") as caught:
        make_run(nn.serial(nn.dense(4), nn.serial(jnp.tanh, fails), nn.dense(2))).init(jax.random.key(0), DATA)
    assert "in serial layer 2 of 2, fails, input (4, 4)" in caught.value.__notes__
    assert "in serial layer 2 of 3, serial, input (4, 4)" in caught.value.__notes__


def fails(x):
    raise ValueError("even size")


def test_targets_may_be_missing():
    """A loss that needs no target, as of an autoencoder."""
    run = train.Run(nn.dense(3), lambda y, _: jnp.square(y).sum(-1), optim.sgd(0.1), batch_size=4)
    _, log = run.steps(run.init(jax.random.key(0), Data(X, None)), Data(X, None), 2)
    assert log["loss"].shape == (2,)


def test_metrics_bound_by_partial_keep_their_names():
    run = make_run(LINEAR, metrics=(partial(metrics.expected_calibration_error, bins=5),))
    assert "expected_calibration_error" in run.evaluate(run.init(jax.random.key(0), DATA), DATA)
    with pytest.raises(ValueError, match="metrics must have different names"):
        make_run(metrics=(metrics.accuracy, partial(metrics.accuracy)))


def test_a_traced_decay_is_a_decay_in_bfloat16_too():
    """In 16 bits .999 is 1: the arithmetic is done in float32."""
    params = jnp.ones(3, jnp.bfloat16)
    updates = [optim.adam(1e-3, b2=b2) for b2 in (0.999, jnp.array(0.999))]
    a, b = (optimizer.update(params, optimizer.init(params))[0] for optimizer in updates)
    assert a.dtype == b.dtype == jnp.bfloat16
    np.testing.assert_array_equal(a, b)


def test_metrics_of_evaluate_get_the_weights():
    x, y = jnp.eye(4), jnp.array([0, 1, 2, 2])
    run = train.Run(lambda x: x, losses.cross_entropy, optim.sgd(0.1), batch_size=2, metrics=(metrics.accuracy,))
    examples = Data(x, y, jnp.array([1.0, 1.0, 1.0, 5.0]))
    ts = run.init(jax.random.key(0), examples)
    assert float(run.evaluate(ts, examples)["accuracy"]) == 3 / 8
