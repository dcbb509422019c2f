"""Planted NaN and infinities are named exactly; what is finite where it counts raises no alarm."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from nnjax import data, losses, nn, optim, train
from nnjax.debug.nonfinite import first_nonfinite

ROWS = 8
X = jax.random.normal(jax.random.key(1), (ROWS, 4))


def of_step(net, x=X, y=None, loss=losses.squared_error, optimizer=None, params=None, **options):
    """What is found in one training step."""
    y = jnp.zeros((ROWS, 3)) if y is None else y
    run = train.Run(net, loss, optimizer or optim.sgd(1e-3), batch_size=ROWS, **options)
    ts = run.init(jax.random.key(0), data.Data(x, y))
    ts = ts if params is None else ts._replace(params=params(ts.params))
    batch = data.Data(x, y)
    found = first_nonfinite(run.step, ts, batch, names=("state", "batch"))
    if found is None:
        leaves = [leaf for leaf in jax.tree.leaves(jax.jit(run.step)(ts, batch)) if leaf.dtype == jnp.float32]
        assert all(np.isfinite(leaf).all() for leaf in leaves)
    return found


def place(found):
    return found.scope, found.phase, found.primitive


def huge(row):
    return X.at[row].set(1e4)


def same():
    """A dense layer (4,) -> (4,) that is the identity at first."""
    return nn.dense(4, w_init=lambda key, shape, dtype: jnp.eye(*shape, dtype=dtype))


def square(x):
    return x * x


def exp(x):
    return jnp.exp(x)


# Arguments


def test_rows_of_the_data_are_named():
    found = of_step(nn.mlp([5], 3, norm="batch"), X.at[3, 1].set(jnp.nan).at[6, 0].set(jnp.inf))
    assert (found.kind, found.primitive, found.rows) == ("argument", "batch.x", (3, 6))
    assert (found.nan, found.inf, found.shape) == (1, 1, (8, 4))
    assert str(found) == "argument batch.x, rows 3, 6: 1 nan, 1 inf in shape (8, 4)"


def test_targets_are_named():
    found = of_step(nn.dense(3), y=jnp.zeros((ROWS, 3)).at[7, 2].set(-jnp.inf))
    assert (found.kind, found.primitive, found.rows) == ("argument", "batch.y", (7,))


def test_parameters_are_named():
    found = of_step(
        nn.serial(nn.dense(5), nn.dense(3)),
        params=lambda p: (p[0], {"w": p[1]["w"].at[2, 1].set(jnp.inf), "b": p[1]["b"]}),
    )
    assert (found.kind, found.primitive, found.rows) == ("argument", "state.params[1]['w']", (2,))


def test_an_argument_that_reaches_no_output_is_not_named():
    assert (
        first_nonfinite(lambda x, y: jnp.where(jnp.isnan(x), 0.0, x) + y, jnp.array([jnp.nan, 1.0]), X[0, :2]) is None
    )


def test_arguments_without_names_are_numbered():
    assert first_nonfinite(lambda x, y: x + y["a"], 1.0, {"a": jnp.array(jnp.nan)}).primitive == "args[1]['a']"


# Layers


def test_overflow_of_a_layer_is_named_and_not_what_follows_from_it():
    found = of_step(nn.serial(same(), exp, lambda x: x - x, nn.dense(3)), huge(5))
    assert place(found) == (("1_exp",), "forward", "exp")
    assert (found.kind, found.rows, found.nan, found.inf, found.loops) == ("primitive", (5,), 0, 4, ())
    assert found.inputs == ((float(X.min()), 1e4),)
    assert str(found).startswith("layer 1 exp (forward), primitive exp, rows 5 of the batch: 4 inf in shape (8, 4), of")


def test_huge_weights_are_named_where_they_overflow():
    def grow(params):
        return (params[0], (), {"w": jnp.full((5, 3), 3e38), "b": jnp.zeros(3)})

    found = of_step(nn.serial(nn.dense(5), lambda x: x * 0 + 2, nn.dense(3)), params=grow)
    assert place(found) == (("2_dense(3)",), "forward", "dot_general")
    assert found.rows == tuple(range(ROWS))


def test_place_inside_residual_and_branch():
    net = nn.serial(same(), nn.residual(same(), square, exp), nn.dense(3))
    assert place(of_step(net, huge(2))) == (("1_residual", "1_serial", "2_exp"), "forward", "exp")
    net = nn.serial(
        same(), nn.branch(nn.identity(), nn.serial(same(), exp), merge=lambda ys: ys[0] + ys[1]), nn.dense(3)
    )
    assert place(of_step(net, huge(2))) == (("1_branch", "1_serial", "1_exp"), "forward", "exp")


def test_merge_of_a_branch_is_the_branch_itself():
    net = nn.serial(nn.branch(jnp.square, jnp.square, merge=lambda ys: ys[0] * ys[1]), nn.dense(3))
    found = of_step(net, X.at[4].set(1e15))
    assert place(found) == (("0_branch",), "forward", "mul")
    assert found.rows == (4,)


def test_batch_norm_after_the_fault_is_not_blamed_and_itself_is():
    net = nn.serial(same(), exp, nn.batch_norm(), nn.dense(3))
    assert place(of_step(net, huge(1))) == (("1_exp",), "forward", "exp")
    found = of_step(nn.serial(same(), nn.batch_norm(), nn.dense(3)), X * 1e25)
    assert place(found) == (("1_batch_norm",), "forward", "square")
    found = of_step(nn.serial(same(), nn.batch_norm(), nn.dense(3)), X * 1e25, micro_batches=2)
    assert (found.scope, found.rows) == (("1_batch_norm",), (0, 1, 2, 3))


def test_statistics_as_long_as_the_batch_are_not_taken_for_rows():
    found = of_step(nn.serial(nn.batch_norm(), nn.dense(3)), jnp.ones((ROWS, ROWS)) * 3e38)
    assert place(found) == (("0_batch_norm",), "forward", "reduce_sum")
    assert (found.shape, found.rows) == ((ROWS,), ())


def test_activations_of_a_square_layer_have_rows():
    found = of_step(nn.serial(nn.dense(ROWS), square, nn.dense(3)), X.at[3].set(1e30))
    assert (place(found), found.rows) == ((("1_square",), "forward", "mul"), (3,))


# Loss, update, backward pass


def naive_binary(p, y):
    return -(y * jnp.log(p) + (1 - y) * jnp.log1p(-p)).sum(-1)


def test_log_of_zero_in_a_loss():
    x = jnp.ones((ROWS, 1)).at[3].set(-1e4)
    net = nn.serial(nn.dense(1, w_init=jax.nn.initializers.ones), jax.nn.sigmoid)
    found = of_step(net, x, jnp.ones((ROWS, 1)), naive_binary)
    assert (place(found), found.rows, found.inf) == ((("loss",), "loss", "log"), (3,), 1)
    assert str(found).startswith("the loss, primitive log, rows 3 of the batch: 1 inf in shape (8, 1)")


def divides_by_root():
    def update(grads, state, params=None):
        return jax.tree.map(lambda g: g / jnp.sqrt(g * g), grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def test_division_by_zero_in_an_optimizer():
    found = of_step(nn.serial(nn.dense(3)), X.at[:, 1].set(0.0), optimizer=divides_by_root())
    assert place(found) == (("update",), "update", "div")
    assert (found.nan, found.shape, found.rows) == (3, (4, 3), ())
    assert str(found).startswith("the update, primitive div: 3 nan in shape (4, 3), of inputs in")


@pytest.mark.parametrize("root", [jnp.sqrt, lambda x: jnp.linalg.norm(x, axis=-1, keepdims=True)], ids=["sqrt", "norm"])
def test_gradient_of_a_root_at_zero_is_of_the_backward_pass(root):
    def positive(x):
        return root(jnp.abs(x))

    found = of_step(nn.serial(same(), positive, nn.dense(3)), X.at[2].set(0.0))
    assert place(found) == (("1_positive",), "backward", "div")
    assert found.rows == (2,)
    assert found.shape == (ROWS, 4) or root is not jnp.sqrt


def test_derivative_made_by_several_primitives_is_of_the_backward_pass():
    """The derivative of the power is infinite at 0 and multiplied further in its own layer."""

    def power(x):
        return lax.pow(jnp.abs(x), jnp.full_like(x, 0.5))

    found = of_step(nn.serial(same(), power, nn.dense(3)), X.at[2].set(0.0))
    assert place(found) == (("1_power",), "backward", "pow")
    assert found.rows == (2,)


def test_guarded_logarithm_in_the_forward_pass_is_unguarded_in_the_backward_pass():
    def guarded(x):
        return jnp.where(x > 0, jnp.log(x), 0.0)

    net = nn.serial(same(), guarded, nn.dense(3))
    x = jnp.abs(X).at[6, 1].set(0.0)
    assert place(of_step(net, x)) == (("1_guarded",), "backward", "div")
    run = train.Run(net, losses.squared_error, optim.sgd(1e-3), batch_size=ROWS)
    ts = run.init(jax.random.key(0), data.Data(x, jnp.zeros((ROWS, 3))))
    assert first_nonfinite(run.evaluate, ts, data.Data(x, jnp.zeros((ROWS, 3)))) is None


def test_overflow_of_a_cotangent():
    def steep(x):
        return x * 1e20

    found = of_step(nn.serial(same(), steep, lambda x: x * 1e-20, steep, lambda x: x * 1e-30, nn.dense(3)), X)
    assert found is None

    @jax.custom_jvp
    def wrong(x):
        return x

    wrong.defjvp(lambda x, t: (x[0], t[0] * 1e38))
    found = of_step(nn.serial(same(), wrong, lambda x: x * 1e3, nn.dense(3)), X)
    assert place(found) == (("1_wrong",), "backward", "mul")


def test_gradient_of_a_plain_function_is_forward_where_its_value_is_bad():
    found = first_nonfinite(jax.value_and_grad(lambda x: jnp.exp(x).sum()), jnp.full(3, 1e3))
    assert place(found) == ((), "forward", "exp")
    assert str(found).startswith("outside all layers (forward), primitive exp")


# Loops


def test_block_of_a_repeat():
    net = nn.serial(same(), nn.repeat(4, square), nn.dense(3))
    found = of_step(net, X.at[1].set(1e6))  # 1e6, 1e12, 1e24, then inf
    assert place(found) == (("1_repeat(4, square)", "square"), "forward", "mul")
    assert (found.iteration, found.loops[0].kind, found.loops[0].length, found.rows) == ((2,), "block", 4, (1,))
    assert "layer 1 repeat(4, square), block 2 of 4, square (forward), primitive mul, rows 1 of" in str(found)


def one_bad_block(params):
    first, repeated, last = params
    return first, ((), ({"w": repeated[1][0]["w"].at[3].set(3e38), "b": repeated[1][0]["b"]}, ())), last


@pytest.mark.parametrize("wrap", [lambda block: block, nn.remat], ids=["plain", "remat"])
def test_block_with_bad_parameters_inside_a_repeat(wrap):
    net = nn.serial(same(), nn.repeat(5, wrap(nn.residual(nn.dense(4), jnp.tanh))), nn.dense(3))
    found = of_step(net, jnp.abs(X) + 1, params=one_bad_block)
    assert found.scope[-2:] == ("1_serial", "0_dense(4)")
    assert (found.phase, found.primitive, found.iteration) == ("forward", "dot_general", (3,))


@pytest.mark.parametrize("wrap", [lambda block: block, nn.remat], ids=["plain", "remat"])
def test_backward_pass_inside_a_repeat_counts_blocks_as_the_forward_pass_does(wrap):
    """The derivative of the root is infinite in block 2 alone, whose input is 0 in one place."""

    def root(x):
        return jnp.sqrt(jnp.abs(x)) * 0 + x - 1

    block = wrap(nn.serial(root, nn.identity()))
    x = jnp.full((ROWS, 4), 9.0).at[5, 1].set(2.0)
    found = of_step(nn.serial(same(), nn.repeat(4, block), nn.dense(3)), x)
    assert (found.phase, found.primitive, found.scope[-1]) == ("backward", "div", "0_root")
    assert (found.iteration, found.rows) == ((2,), (5,))
    assert found.scope == (f"1_repeat(4, {block.name})", block.name, "0_root")


def test_micro_batches_count_rows_in_the_batch():
    found = of_step(nn.serial(same(), exp, nn.dense(3)), huge(5), micro_batches=4)
    assert (place(found), found.rows) == ((("1_exp",), "forward", "exp"), (5,))
    assert (found.loops[0].kind, found.iteration, found.shape) == ("micro-batch", (2,), (2, 4))
    assert str(found).startswith("micro-batch 2 of 4, layer 1 exp (forward), primitive exp, rows 5 of the batch")


def test_micro_batch_and_block():
    found = of_step(nn.serial(nn.repeat(4, nn.remat(square)), nn.dense(3)), X.at[5].set(1e6), micro_batches=2)
    assert (found.iteration, found.rows) == ((1, 2), (5,))
    assert [loop.kind for loop in found.loops] == ["micro-batch", "block"]


def test_while_and_cond_are_entered():
    def program(x):
        def body(carry):
            i, x = carry
            return i + 1, lax.cond(i == 3, lambda x: jnp.log(x - x), lambda x: x, x)

        return lax.while_loop(lambda carry: carry[0] < 5, body, (0, x))[1]

    found = first_nonfinite(program, jnp.ones(2))
    assert (found.primitive, found.iteration, found.loops[0].length) == ("log", (3,), None)
    assert "iteration 3, outside all layers" in str(found)


def test_scans_keep_order_and_keys():
    def program(key, xs):
        def body(carry, key_x):
            key, x = key_x
            return carry + jax.random.normal(key), (jnp.log(x), jax.random.fold_in(key, 1))

        carry, (logs, keys) = lax.scan(body, 0.0, (jax.random.split(key, 4), xs), reverse=True)
        return logs[0], carry, keys

    xs = jnp.array([1.0, 0.0, 1.0, 1.0])
    assert first_nonfinite(program, jax.random.key(0), xs) is None  # logs[1] is bad and unused
    found = first_nonfinite(program, jax.random.key(0), xs[::-1].at[0].set(0.0))
    assert (found.primitive, found.iteration) == ("log", (0,))


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


def test_only_the_origin_whose_elements_reach_an_output_is_named():
    def program(x):
        logs = jnp.log(x)  # -inf in element 0, which is guarded
        big = logs + jnp.array([0.0, 3e38]) + jnp.array([0.0, 3e38])  # inf in element 1, which is not
        return jnp.where(x > 0, big, 0.0)

    assert first_nonfinite(program, jnp.array([0.0, 1.0])).primitive == "add"
    assert first_nonfinite(program, jnp.array([0.0, 0.0])) is None


def test_an_origin_beside_a_bad_argument_is_named_where_only_it_counts():
    def program(x):
        return jnp.log(x)[1:]

    found = first_nonfinite(program, jnp.array([jnp.nan, 0.0]))
    assert (found.kind, found.primitive) == ("primitive", "log")


def test_sum_of_two_origins_is_the_earlier_one():
    assert first_nonfinite(lambda x: jnp.exp(x) - jnp.square(x), jnp.array(1e30)).primitive == "exp"
    assert first_nonfinite(lambda x: jnp.square(x) + jnp.exp(x), jnp.array(1e30)).primitive == "square"


@pytest.mark.parametrize(
    "function",
    [lambda x: 1 / jnp.log(x), jnp.arctanh, jnp.arccosh, jax.scipy.special.erfinv, lambda x: x**-0.5, lambda x: 1 / x],
)
def test_function_with_a_singularity_is_not_blamed_for_a_bad_argument(function):
    found = first_nonfinite(function, jnp.array([jnp.nan]))
    assert (found.kind, found.rows) == ("argument", (0,))


def test_infinities_written_into_the_program():
    def masked(x, keep):
        return nn.softmax(jnp.where(keep, x, -jnp.inf))

    assert first_nonfinite(masked, X, X > -9) is None
    found = first_nonfinite(masked, X, (X > -9).at[2].set(False))  # a row masked altogether: -inf - -inf
    assert (found.kind, found.primitive, found.nan) == ("primitive", "sub", 4)
    found = first_nonfinite(lambda x: jnp.maximum(x, jnp.inf), X)
    assert (found.kind, found.primitive) == ("constant", "max")
    assert "a constant in max: 1 inf in shape ()" in str(found)
    found = first_nonfinite(lambda x: (jnp.maximum(x, jnp.inf), jnp.log(x * 0)), X)
    assert (found.kind, found.primitive) == ("primitive", "log")
    assert first_nonfinite(lambda x: jnp.where(x > 100, jnp.nan, x) * (x * 0), X) is None
    found = first_nonfinite(lambda x: jnp.where(x < 100, jnp.nan, x) * 2, X)
    assert found.kind == "constant"


def test_captured_values_are_constants():
    captured = jnp.array([1.0, jnp.nan])
    assert first_nonfinite(lambda x: x + captured, jnp.ones(2)).kind == "constant"


# No false alarm


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
def test_nothing_is_found_where_outputs_are_finite(program):
    assert first_nonfinite(program, X) is None


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_cross_entropy_of_large_logits_raises_no_alarm(size):
    labels = jnp.arange(ROWS) % 4
    for smoothing in (0.0, 0.1):

        def loss(p, y, smoothing=smoothing):
            return losses.cross_entropy(p, y, label_smoothing=smoothing)

        assert of_step(nn.serial(same(), nn.identity()), X.at[1, 2].set(size), labels, loss) is None


def test_lenet_raises_no_alarm():
    images = jax.random.normal(jax.random.key(2), (ROWS, 12, 12, 1))
    run = train.Run(nn.lenet(3), losses.cross_entropy, optim.sgd(1e-3), batch_size=ROWS)
    batch = data.Data(images, jnp.arange(ROWS) % 3)
    assert first_nonfinite(run.step, run.init(jax.random.key(0), batch), batch) is None


def test_dropout_adam_and_weights_raise_no_alarm():
    run = train.Run(nn.serial(nn.dropout(0.5), nn.dense(3)), losses.squared_error, optim.adam(1e-3), batch_size=ROWS)
    batch = data.Data(X, jnp.zeros((ROWS, 3)), jnp.zeros(ROWS))  # weights of 0: a division that is guarded
    assert first_nonfinite(run.step, run.init(jax.random.key(0), batch), batch) is None


def test_fifty_blocks_in_16_bits_raise_no_alarm():
    net = nn.serial(nn.repeat(50, nn.residual(nn.dense(4), jnp.tanh)), nn.dense(3))
    assert of_step(nn.with_precision(net, compute=jnp.bfloat16)) is None
    net = nn.with_precision(nn.serial(same(), exp, nn.dense(3)), compute=jnp.bfloat16)
    assert of_step(net, huge(5)).rows == (5,)


# Use


def test_misuse_is_told():
    with pytest.raises(ValueError, match=r"first_nonfinite: 2 arguments need as many names, got \['state'\]"):
        first_nonfinite(jnp.add, 1.0, 2.0, names=("state",))
    with pytest.raises(TypeError, match="must be called outside jit, vmap and grad"):
        jax.jit(lambda x: first_nonfinite(jnp.log, x))(1.0)


def test_debugging_modes_of_jax_do_not_interfere():
    with jax.debug_nans(True):
        assert first_nonfinite(jnp.log, jnp.array(-1.0)).primitive == "log"
