"""`first_nonfinite` names planted NaN and infinities exactly and raises no false alarms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from nnjax import data, losses, nn, optim, train
from nnjax.debug import first_nonfinite

ROWS = 8
X = jax.random.normal(jax.random.key(1), (ROWS, 4))


def origin_of_step(net, x=X, y=None, loss=losses.squared_error, optimizer=None, params=None, **options):
    """Return the origin of non-finite values in one training step."""
    y = jnp.zeros((ROWS, 3)) if y is None else y
    run = train.Run(net, loss, optimizer or optim.sgd(1e-3), batch_size=ROWS, **options)
    ts = run.init(jax.random.key(0), data.Data(x, y))
    ts = ts if params is None else ts._replace(params=params(ts.params))
    batch = data.Data(x, y)
    origin = first_nonfinite(run.step, ts, batch, names=("state", "batch"))
    if origin is None:
        leaves = [leaf for leaf in jax.tree.leaves(jax.jit(run.step)(ts, batch)) if leaf.dtype == jnp.float32]
        assert all(np.isfinite(leaf).all() for leaf in leaves)
    return origin


def place(origin):
    return origin.scope, origin.phase, origin.primitive


def large_row(row):
    return X.at[row].set(1e4)


def identity_dense():
    """Return a dense layer (4,) -> (4,) whose weights are the identity."""
    return nn.dense(4, w_init=lambda key, shape, dtype: jnp.eye(*shape, dtype=dtype))


def square(x):
    return x * x


def exp(x):
    return jnp.exp(x)


# Arguments


def test_data_rows():
    origin = origin_of_step(nn.mlp([5], 3, norm="batch"), X.at[3, 1].set(jnp.nan).at[6, 0].set(jnp.inf))
    assert (origin.kind, origin.primitive, origin.rows) == ("argument", "batch.x", (3, 6))
    assert (origin.nan, origin.inf, origin.shape) == (1, 1, (8, 4))
    assert str(origin) == "argument batch.x, rows 3, 6: 1 nan, 1 inf in shape (8, 4)"


def test_target_rows():
    origin = origin_of_step(nn.dense(3), y=jnp.zeros((ROWS, 3)).at[7, 2].set(-jnp.inf))
    assert (origin.kind, origin.primitive, origin.rows) == ("argument", "batch.y", (7,))


def test_parameter():
    origin = origin_of_step(
        nn.serial(nn.dense(5), nn.dense(3)),
        params=lambda p: (p[0], {"w": p[1]["w"].at[2, 1].set(jnp.inf), "b": p[1]["b"]}),
    )
    assert (origin.kind, origin.primitive, origin.rows) == ("argument", "state.params[1]['w']", (2,))


def test_unused_argument_is_ignored():
    assert (
        first_nonfinite(lambda x, y: jnp.where(jnp.isnan(x), 0.0, x) + y, jnp.array([jnp.nan, 1.0]), X[0, :2]) is None
    )


def test_arguments_without_names_are_numbered():
    assert first_nonfinite(lambda x, y: x + y["a"], 1.0, {"a": jnp.array(jnp.nan)}).primitive == "args[1]['a']"


# Layers


def test_overflow_in_a_layer_and_not_its_consequences():
    origin = origin_of_step(nn.serial(identity_dense(), exp, lambda x: x - x, nn.dense(3)), large_row(5))
    assert place(origin) == (("1_exp",), "forward", "exp")
    assert (origin.kind, origin.rows, origin.nan, origin.inf, origin.loops) == ("primitive", (5,), 0, 4, ())
    assert origin.inputs == ((float(X.min()), 1e4),)
    assert str(origin).startswith(
        "layer 1 exp (forward), primitive exp, rows 5 of the batch: 4 inf in shape (8, 4), inputs"
    )


def test_overflow_caused_by_large_weights():
    def grow(params):
        return (params[0], (), {"w": jnp.full((5, 3), 3e38), "b": jnp.zeros(3)})

    origin = origin_of_step(nn.serial(nn.dense(5), lambda x: x * 0 + 2, nn.dense(3)), params=grow)
    assert place(origin) == (("2_dense(3)",), "forward", "dot_general")
    assert origin.rows == tuple(range(ROWS))


def test_scope_inside_residual_and_branch():
    net = nn.serial(identity_dense(), nn.residual(identity_dense(), square, exp), nn.dense(3))
    assert place(origin_of_step(net, large_row(2))) == (("1_residual", "1_serial", "2_exp"), "forward", "exp")
    net = nn.serial(
        identity_dense(),
        nn.branch(nn.identity(), nn.serial(identity_dense(), exp), merge=lambda ys: ys[0] + ys[1]),
        nn.dense(3),
    )
    assert place(origin_of_step(net, large_row(2))) == (("1_branch", "1_serial", "1_exp"), "forward", "exp")


def test_merge_belongs_to_the_branch():
    net = nn.serial(nn.branch(jnp.square, jnp.square, merge=lambda ys: ys[0] * ys[1]), nn.dense(3))
    origin = origin_of_step(net, X.at[4].set(1e15))
    assert place(origin) == (("0_branch",), "forward", "mul")
    assert origin.rows == (4,)


def test_batch_norm_as_consequence_and_as_origin():
    net = nn.serial(identity_dense(), exp, nn.batch_norm(), nn.dense(3))
    assert place(origin_of_step(net, large_row(1))) == (("1_exp",), "forward", "exp")
    origin = origin_of_step(nn.serial(identity_dense(), nn.batch_norm(), nn.dense(3)), X * 1e25)
    assert place(origin) == (("1_batch_norm",), "forward", "square")
    origin = origin_of_step(nn.serial(identity_dense(), nn.batch_norm(), nn.dense(3)), X * 1e25, micro_batches=2)
    assert (origin.scope, origin.rows) == (("1_batch_norm",), (0, 1, 2, 3))


def test_statistics_as_long_as_the_batch_are_not_rows():
    origin = origin_of_step(nn.serial(nn.batch_norm(), nn.dense(3)), jnp.ones((ROWS, ROWS)) * 3e38)
    assert place(origin) == (("0_batch_norm",), "forward", "reduce_sum")
    assert (origin.shape, origin.rows) == ((ROWS,), ())


def test_activations_of_a_square_layer_have_rows():
    origin = origin_of_step(nn.serial(nn.dense(ROWS), square, nn.dense(3)), X.at[3].set(1e30))
    assert (place(origin), origin.rows) == ((("1_square",), "forward", "mul"), (3,))


# Loss, update, backward pass


def naive_binary(p, y):
    return -(y * jnp.log(p) + (1 - y) * jnp.log1p(-p)).sum(-1)


def test_log_of_zero_in_a_loss():
    x = jnp.ones((ROWS, 1)).at[3].set(-1e4)
    net = nn.serial(nn.dense(1, w_init=jax.nn.initializers.ones), jax.nn.sigmoid)
    origin = origin_of_step(net, x, jnp.ones((ROWS, 1)), naive_binary)
    assert (place(origin), origin.rows, origin.inf) == ((("loss",), "loss", "log"), (3,), 1)
    assert str(origin).startswith("the loss, primitive log, rows 3 of the batch: 1 inf in shape (8, 1)")


def divides_by_root():
    def update(grads, state, params=None):
        return jax.tree.map(lambda g: g / jnp.sqrt(g * g), grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def test_division_by_zero_in_an_optimizer():
    origin = origin_of_step(nn.serial(nn.dense(3)), X.at[:, 1].set(0.0), optimizer=divides_by_root())
    assert place(origin) == (("update",), "update", "div")
    assert (origin.nan, origin.shape, origin.rows) == (3, (4, 3), ())
    assert str(origin).startswith("the update, primitive div: 3 nan in shape (4, 3), inputs in")


@pytest.mark.parametrize("root", [jnp.sqrt, lambda x: jnp.linalg.norm(x, axis=-1, keepdims=True)], ids=["sqrt", "norm"])
def test_gradient_of_a_root_at_zero_is_in_the_backward_pass(root):
    def positive(x):
        return root(jnp.abs(x))

    origin = origin_of_step(nn.serial(identity_dense(), positive, nn.dense(3)), X.at[2].set(0.0))
    assert place(origin) == (("1_positive",), "backward", "div")
    assert origin.rows == (2,)
    assert origin.shape == (ROWS, 4) or root is not jnp.sqrt


def test_derivative_of_several_primitives_is_in_the_backward_pass():
    """The derivative of the power is infinite at 0 and multiplied further in the same layer."""

    def power(x):
        return lax.pow(jnp.abs(x), jnp.full_like(x, 0.5))

    origin = origin_of_step(nn.serial(identity_dense(), power, nn.dense(3)), X.at[2].set(0.0))
    assert place(origin) == (("1_power",), "backward", "pow")
    assert origin.rows == (2,)


def test_guarded_logarithm_fails_in_the_backward_pass():
    def guarded(x):
        return jnp.where(x > 0, jnp.log(x), 0.0)

    net = nn.serial(identity_dense(), guarded, nn.dense(3))
    x = jnp.abs(X).at[6, 1].set(0.0)
    assert place(origin_of_step(net, x)) == (("1_guarded",), "backward", "div")
    run = train.Run(net, losses.squared_error, optim.sgd(1e-3), batch_size=ROWS)
    ts = run.init(jax.random.key(0), data.Data(x, jnp.zeros((ROWS, 3))))
    assert first_nonfinite(run.evaluate, ts, data.Data(x, jnp.zeros((ROWS, 3)))) is None


def test_overflow_of_a_cotangent():
    def steep(x):
        return x * 1e20

    origin = origin_of_step(
        nn.serial(identity_dense(), steep, lambda x: x * 1e-20, steep, lambda x: x * 1e-30, nn.dense(3)), X
    )
    assert origin is None

    @jax.custom_jvp
    def wrong(x):
        return x

    wrong.defjvp(lambda x, t: (x[0], t[0] * 1e38))
    origin = origin_of_step(nn.serial(identity_dense(), wrong, lambda x: x * 1e3, nn.dense(3)), X)
    assert place(origin) == (("1_wrong",), "backward", "mul")


def test_gradient_of_a_function_with_a_nonfinite_value_is_forward():
    origin = first_nonfinite(jax.value_and_grad(lambda x: jnp.exp(x).sum()), jnp.full(3, 1e3))
    assert place(origin) == ((), "forward", "exp")
    assert str(origin).startswith("outside all layers (forward), primitive exp")


# Loops


def test_block_of_a_repeat():
    net = nn.serial(identity_dense(), nn.repeat(4, square), nn.dense(3))
    origin = origin_of_step(net, X.at[1].set(1e6))  # 1e6, 1e12, 1e24, then inf
    assert place(origin) == (("1_repeat(4, square)", "square"), "forward", "mul")
    assert (origin.iteration, origin.loops[0].kind, origin.loops[0].length, origin.rows) == ((2,), "block", 4, (1,))
    assert "layer 1 repeat(4, square), block 2 of 4, square (forward), primitive mul, rows 1 of" in str(origin)


def one_bad_block(params):
    first, repeated, last = params
    return first, ((), ({"w": repeated[1][0]["w"].at[3].set(3e38), "b": repeated[1][0]["b"]}, ())), last


@pytest.mark.parametrize("wrap", [lambda block: block, nn.remat], ids=["plain", "remat"])
def test_block_with_bad_parameters_inside_a_repeat(wrap):
    net = nn.serial(identity_dense(), nn.repeat(5, wrap(nn.residual(nn.dense(4), jnp.tanh))), nn.dense(3))
    origin = origin_of_step(net, jnp.abs(X) + 1, params=one_bad_block)
    assert origin.scope[-2:] == ("1_serial", "0_dense(4)")
    assert (origin.phase, origin.primitive, origin.iteration) == ("forward", "dot_general", (3,))


@pytest.mark.parametrize("wrap", [lambda block: block, nn.remat], ids=["plain", "remat"])
def test_backward_pass_counts_blocks_like_the_forward_pass(wrap):
    """The derivative of the root is infinite only in block 2, where one input is 0."""

    def root(x):
        return jnp.sqrt(jnp.abs(x)) * 0 + x - 1

    block = wrap(nn.serial(root, nn.identity()))
    x = jnp.full((ROWS, 4), 9.0).at[5, 1].set(2.0)
    origin = origin_of_step(nn.serial(identity_dense(), nn.repeat(4, block), nn.dense(3)), x)
    assert (origin.phase, origin.primitive, origin.scope[-1]) == ("backward", "div", "0_root")
    assert (origin.iteration, origin.rows) == ((2,), (5,))
    assert origin.scope == (f"1_repeat(4, {block.name})", block.name, "0_root")


def test_micro_batches_count_rows_in_the_batch():
    origin = origin_of_step(nn.serial(identity_dense(), exp, nn.dense(3)), large_row(5), micro_batches=4)
    assert (place(origin), origin.rows) == ((("1_exp",), "forward", "exp"), (5,))
    assert (origin.loops[0].kind, origin.iteration, origin.shape) == ("micro-batch", (2,), (2, 4))
    assert str(origin).startswith("micro-batch 2 of 4, layer 1 exp (forward), primitive exp, rows 5 of the batch")


def test_micro_batch_and_block():
    origin = origin_of_step(nn.serial(nn.repeat(4, nn.remat(square)), nn.dense(3)), X.at[5].set(1e6), micro_batches=2)
    assert (origin.iteration, origin.rows) == ((1, 2), (5,))
    assert [loop.kind for loop in origin.loops] == ["micro-batch", "block"]


def test_while_and_cond_are_entered():
    def program(x):
        def body(carry):
            i, x = carry
            return i + 1, lax.cond(i == 3, lambda x: jnp.log(x - x), lambda x: x, x)

        return lax.while_loop(lambda carry: carry[0] < 5, body, (0, x))[1]

    origin = first_nonfinite(program, jnp.ones(2))
    assert (origin.primitive, origin.iteration, origin.loops[0].length) == ("log", (3,), None)
    assert "iteration 3, outside all layers" in str(origin)


def test_scans_keep_order_and_keys():
    def program(key, xs):
        def body(carry, key_x):
            key, x = key_x
            return carry + jax.random.normal(key), (jnp.log(x), jax.random.fold_in(key, 1))

        carry, (logs, keys) = lax.scan(body, 0.0, (jax.random.split(key, 4), xs), reverse=True)
        return logs[0], carry, keys

    xs = jnp.array([1.0, 0.0, 1.0, 1.0])
    assert first_nonfinite(program, jax.random.key(0), xs) is None  # logs[1] is -inf and unused
    origin = first_nonfinite(program, jax.random.key(0), xs[::-1].at[0].set(0.0))
    assert (origin.primitive, origin.iteration) == ("log", (0,))


def test_scan_of_no_steps():
    assert first_nonfinite(lambda x: lax.scan(lambda c, x: (c, x + c), x, jnp.zeros((0, 2))), jnp.ones(2)) is None


def test_custom_derivatives_are_entered():
    @jax.custom_vjp
    def f(x):
        return jnp.log(x)

    f.defvjp(lambda x: (jnp.log(x), x), lambda x, t: (t / x,))
    assert first_nonfinite(f, jnp.zeros(2)).primitive == "log"
    assert first_nonfinite(jax.grad(lambda x: jnp.minimum(f(x), 1.0).sum() * 0), jnp.zeros(2)).primitive == "div"


# Origins


def test_origin_must_reach_an_output():
    def program(x):
        logs = jnp.log(x)  # -inf in element 0, which is masked
        big = logs + jnp.array([0.0, 3e38]) + jnp.array([0.0, 3e38])  # inf in element 1, which is not masked
        return jnp.where(x > 0, big, 0.0)

    assert first_nonfinite(program, jnp.array([0.0, 1.0])).primitive == "add"
    assert first_nonfinite(program, jnp.array([0.0, 0.0])) is None


def test_nonfinite_argument_that_reaches_no_output_hides_no_origin():
    def program(x):
        return jnp.log(x)[1:]

    origin = first_nonfinite(program, jnp.array([jnp.nan, 0.0]))
    assert (origin.kind, origin.primitive) == ("primitive", "log")


def test_earlier_of_two_origins():
    assert first_nonfinite(lambda x: jnp.exp(x) - jnp.square(x), jnp.array(1e30)).primitive == "exp"
    assert first_nonfinite(lambda x: jnp.square(x) + jnp.exp(x), jnp.array(1e30)).primitive == "square"


@pytest.mark.parametrize(
    "function",
    [lambda x: 1 / jnp.log(x), jnp.arctanh, jnp.arccosh, jax.scipy.special.erfinv, lambda x: x**-0.5, lambda x: 1 / x],
)
def test_function_with_a_singularity_inherits_a_nonfinite_argument(function):
    origin = first_nonfinite(function, jnp.array([jnp.nan]))
    assert (origin.kind, origin.rows) == ("argument", (0,))


def test_infinities_written_into_the_program():
    def masked(x, keep):
        return nn.softmax(jnp.where(keep, x, -jnp.inf))

    assert first_nonfinite(masked, X, X > -9) is None
    origin = first_nonfinite(masked, X, (X > -9).at[2].set(False))  # all of row 2 is masked: -inf - -inf
    assert (origin.kind, origin.primitive, origin.nan) == ("primitive", "sub", 4)
    origin = first_nonfinite(lambda x: jnp.maximum(x, jnp.inf), X)
    assert (origin.kind, origin.primitive) == ("constant", "max")
    assert "a constant in max: 1 inf in shape ()" in str(origin)
    origin = first_nonfinite(lambda x: (jnp.maximum(x, jnp.inf), jnp.log(x * 0)), X)
    assert (origin.kind, origin.primitive) == ("primitive", "log")
    assert first_nonfinite(lambda x: jnp.where(x > 100, jnp.nan, x) * (x * 0), X) is None
    origin = first_nonfinite(lambda x: jnp.where(x < 100, jnp.nan, x) * 2, X)
    assert origin.kind == "constant"


def test_captured_values_are_constants():
    captured = jnp.array([1.0, jnp.nan])
    assert first_nonfinite(lambda x: x + captured, jnp.ones(2)).kind == "constant"


# No false alarms


@pytest.mark.parametrize(
    "program",
    [
        lambda x: jnp.where(x > 0, jnp.log(x), 0.0),
        lambda x: jnp.max(x, axis=1, initial=-jnp.inf),
        lambda x: jax.nn.logsumexp(x * 1e4, axis=-1),
        lambda x: jax.nn.logsumexp(jnp.where(x > 9, x, -jnp.inf).at[:, 0].set(0.0), axis=-1),
        lambda x: jnp.where(x * 0 > 1, 1 / (x * 0), 1.0),
        lambda x: jnp.exp(jnp.log(x * 0)),
        lambda x: nn.softmax(x + jnp.log((x > 9).at[:, 1].set(True).astype(x.dtype))),
        lambda x: jnp.isfinite(jnp.log(x * 0)),
        lambda x: nn.max_pool(3, strides=1, padding="SAME").apply((), (), x[..., None], train=False)[0],
        lambda x: lax.cond(x[0, 0] > 1e9, lambda x: jnp.log(-x), lambda x: x, x),
        lambda x: optax.clip_by_global_norm(1.0).update(x * 0, optax.EmptyState())[0],
        lambda x: (jax.random.key(0), x.astype(jnp.bfloat16), x > 0),
    ],
)
def test_finite_outputs(program):
    assert first_nonfinite(program, X) is None


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_cross_entropy_of_large_logits(size):
    labels = jnp.arange(ROWS) % 4
    for smoothing in (0.0, 0.1):

        def loss(p, y, smoothing=smoothing):
            return losses.cross_entropy(p, y, label_smoothing=smoothing)

        assert origin_of_step(nn.serial(identity_dense(), nn.identity()), X.at[1, 2].set(size), labels, loss) is None


def test_convolutional_network():
    images = jax.random.normal(jax.random.key(2), (ROWS, 6, 6, 1))
    net = nn.serial(nn.conv(2, (3, 3)), jax.nn.relu, nn.max_pool(2), nn.flatten(), nn.dense(3))
    run = train.Run(net, losses.cross_entropy, optim.sgd(1e-3), batch_size=ROWS)
    batch = data.Data(images, jnp.arange(ROWS) % 3)
    assert first_nonfinite(run.step, run.init(jax.random.key(0), batch), batch) is None


def test_dropout_adam_and_weights():
    run = train.Run(nn.serial(nn.dropout(0.5), nn.dense(3)), losses.squared_error, optim.adam(1e-3), batch_size=ROWS)
    batch = data.Data(X, jnp.zeros((ROWS, 3)), jnp.zeros(ROWS))  # a guarded division by weights of 0
    assert first_nonfinite(run.step, run.init(jax.random.key(0), batch), batch) is None


def test_blocks_in_16_bits():
    net = nn.serial(nn.repeat(10, nn.residual(nn.dense(4), jnp.tanh)), nn.dense(3))
    assert origin_of_step(nn.with_precision(net, compute=jnp.bfloat16)) is None
    net = nn.with_precision(nn.serial(identity_dense(), exp, nn.dense(3)), compute=jnp.bfloat16)
    assert origin_of_step(net, large_row(5)).rows == (5,)


# Calls


def test_wrong_calls_raise():
    with pytest.raises(ValueError, match=r"first_nonfinite: got 1 names for 2 arguments"):
        first_nonfinite(jnp.add, 1.0, 2.0, names=("state",))
    with pytest.raises(TypeError, match="call it outside jit, vmap and grad"):
        jax.jit(lambda x: first_nonfinite(jnp.log, x))(1.0)


def test_jax_debug_nans_does_not_interfere():
    with jax.debug_nans(True):
        assert first_nonfinite(jnp.log, jnp.array(-1.0)).primitive == "log"
