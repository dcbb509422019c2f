"""`count_flops` agrees with counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from nnjax import data, losses, nn, optim, train
from nnjax.debug import Cost, count_flops

B, I, O = 8, 5, 3  # noqa: E741


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


W = {"w": shape(I, O), "b": shape(O)}


def dense(params, x):
    return nn.dense(O).apply(params, (), x, train=True)[0]


def test_dense_forward():
    cost = count_flops(dense, W, shape(B, I))
    assert cost == Cost(2 * B * I * O, B * O, 0)
    assert cost.total == 2 * B * I * O + B * O


def test_dense_backward():
    """The gradients of w and x take one product each, that of b a sum over the batch, and the cotangent 2 y B·O."""

    def loss(params, x):
        return jnp.square(dense(params, x)).sum()

    forward = Cost(2 * B * I * O, B * O + B * O + (B * O - 1), 0)
    assert count_flops(loss, W, shape(B, I)) == forward
    gradient = count_flops(jax.grad(loss, argnums=(0, 1)), W, shape(B, I))
    assert gradient.matmul == 3 * forward.matmul
    assert count_flops(jax.grad(loss), W, shape(B, I)).matmul == 2 * forward.matmul


@settings(max_examples=20, deadline=None)
@given(
    size=st.integers(1, 9),
    window=st.integers(1, 4),
    stride=st.integers(1, 3),
    groups=st.sampled_from([1, 2]),
    dilation=st.integers(1, 2),
    padding=st.sampled_from(["SAME", "VALID"]),
)
def test_each_gradient_of_a_convolution_costs_as_much_as_the_convolution(
    size, window, stride, groups, dilation, padding
):
    if padding == "VALID" and size < (window - 1) * dilation + 1:
        return
    layer = nn.conv(4, (window, 1), strides=(stride, 1), padding=padding, groups=groups, dilation=dilation, bias=False)
    x = shape(3, size, 2, 2)
    params, _ = jax.eval_shape(layer.init, jax.random.key(0), x)

    def loss(params, x):
        return layer.apply(params, (), x, train=True)[0].sum()

    forward = count_flops(loss, params, x).matmul
    out = -(-size // stride) if padding == "SAME" else (size - (window - 1) * dilation - 1) // stride + 1
    before = max((out - 1) * stride + (window - 1) * dilation + 1 - size, 0) // 2 if padding == "SAME" else 0
    pairs = sum(0 <= o * stride + k * dilation - before < size for o in range(out) for k in range(window))
    assert forward == 2 * 3 * 2 * 4 * (2 // groups) * pairs
    assert count_flops(jax.value_and_grad(loss, argnums=(0, 1)), params, x).matmul == 3 * forward


def test_convolution_without_padding():
    layer = nn.conv(16, (5, 5), padding="VALID")
    params, _ = jax.eval_shape(layer.init, jax.random.key(0), shape(B, 14, 14, 6))
    cost = count_flops(lambda p, x: layer.apply(p, (), x, train=True)[0], params, shape(B, 14, 14, 6))
    assert cost == Cost(2 * B * 10 * 10 * 16 * 5 * 5 * 6, B * 10 * 10 * 16, 0)


def test_batched_products():
    assert count_flops(jnp.matmul, shape(7, B, I), shape(7, I, O)) == Cost(2 * 7 * B * I * O, 0, 0)
    assert count_flops(jax.vmap(dense, in_axes=(None, 0)), W, shape(7, B, I)) == Cost(2 * 7 * B * I * O, 7 * B * O, 0)


def test_nested_programs_count_once():
    program = jax.jit(lambda p, x: jax.nn.relu(jax.jit(dense)(p, x)))
    assert count_flops(program, W, shape(B, I)) == Cost(2 * B * I * O, 2 * B * O, 0)
    assert count_flops(jax.checkpoint(dense), W, shape(B, I)) == Cost(2 * B * I * O, B * O, 0)


def test_scan_counts_its_length():
    def program(x, w):
        return lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=6)[0]

    assert count_flops(program, shape(B, I), shape(I, I)) == Cost(6 * 2 * B * I * I, 6 * B * I, 0)
    twice = count_flops(
        lambda x, w: lax.scan(lambda x, _: (program(x, w), None), x, length=2)[0], shape(B, I), shape(I, I)
    )
    assert twice == Cost(12 * 2 * B * I * I, 12 * B * I, 0)


def test_while_counts_its_body_once_or_trips_times():
    def program(x, n):
        return lax.fori_loop(0, n, lambda i, x: jnp.tanh(lax.fori_loop(0, i, lambda _, x: x * 2, x)), x)

    assert count_flops(program, shape(B), shape(dtype=jnp.int32)) == Cost(0, 2 * B, 2)
    assert count_flops(program, shape(B), shape(dtype=jnp.int32), trips=10) == Cost(0, 10 * (B + 10 * B), 0)
    assert count_flops(lambda x: lax.fori_loop(0, 4, lambda i, x: x * 2, x), shape(B)) == Cost(0, 4 * B, 0)


@pytest.mark.parametrize(("trips", "error"), [(0, ValueError), (1.5, TypeError)])
def test_trips_are_checked(trips, error):
    with pytest.raises(error, match="count_flops: trips must be"):
        count_flops(jnp.tanh, shape(B), trips=trips)


def test_cond_counts_its_most_expensive_branch():
    def program(i, x):
        return lax.switch(i, [jnp.tanh, lambda x: jnp.tanh(x * x + x), lambda x: x], x)

    assert count_flops(program, shape(dtype=jnp.int32), shape(B)) == Cost(0, 3 * B, 0)


@pytest.mark.parametrize(
    ("program", "count"),
    [
        (jnp.exp, B * I),
        (lambda x: x**-0.5, B * I),
        (lambda x: x.sum(), B * I - 1),
        (lambda x: x.max(axis=0), (B - 1) * I),
        (lambda x: jnp.cumsum(x, axis=0), B * I),
        (lambda x: lax.reduce(x, 0.0, lambda a, b: a + b, (1,)), B * (I - 1)),
        (lambda x: x.T.reshape(-1)[::-1], 0),
        (lambda x: x > 0, 0),
        (lambda x: x.astype(jnp.int32) * 2, 0),
        (lambda x: jnp.where(x > 0, x, 0.0), 0),
        (lambda x: jnp.argsort(x, axis=0), 0),
        (lambda x: x.at[jnp.array([1, 2])].add(1.0), 2 * I),
        (lambda x: x.at[jnp.array([1, 2])].set(1.0), 0),
        (lambda x: nn.max_pool(2).apply((), (), x[:, :4, None], train=True)[0], B * 2),
        (lambda x: nn.avg_pool(2).apply((), (), x[:1, :4, None], train=True)[0], 2 + 2 + 2),
        (lambda x: jax.random.bits(jax.random.key(0), x.shape), 0),
    ],
)
def test_count_of_one_operation(program, count):
    assert count_flops(program, shape(B, I)) == Cost(0, count, 0)


def test_gradient_of_max_pooling_with_overlapping_windows():
    pool = nn.max_pool(2, strides=1)
    cost = count_flops(jax.grad(lambda x: pool.apply((), (), x, train=True)[0].sum()), shape(B, 4, O))
    assert cost.other == B * 3 * O + (B * 3 * O - 1) + B * 3 * O * 2


def test_matmuls_of_a_training_step_cost_three_forward_passes():
    """The gradient of the first layer's input is not needed."""
    run = train.Run(nn.mlp([16, 32], 10), losses.cross_entropy, optim.adam(1e-3), batch_size=B)
    batch = data.Data(shape(B, 7), shape(B, dtype=jnp.int32))
    ts = jax.eval_shape(run.init, jax.random.key(0), batch)
    products = [7 * 16, 16 * 32, 32 * 10]
    cost = count_flops(run.step, ts, batch)
    assert cost.matmul == 2 * B * (3 * sum(products) - products[0])
    assert cost.unknown == 0
    parameters = sum(products) + 16 + 32 + 10
    assert cost.other > 10 * parameters  # Adam
    parts = train.Run(run.net, run.loss, run.optimizer, batch_size=B, micro_batches=4)
    assert count_flops(parts.step, ts, batch).matmul == cost.matmul


def test_matmul_agrees_with_the_compiler():
    def program(a, b):
        return a @ b

    a, b = shape(32, 64), shape(64, 48)
    assert jax.jit(program).lower(a, b).compile().cost_analysis()["flops"] == count_flops(program, a, b).total


@pytest.mark.parametrize("devices", [1, 4])
def test_shard_map_counts_all_devices(devices):
    mesh = jax.sharding.AbstractMesh((devices,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("batch")
    program = jax.shard_map(jnp.tanh, mesh=mesh, in_specs=spec, out_specs=spec)
    assert count_flops(program, shape(B, I)) == Cost(0, B * I, 0)
