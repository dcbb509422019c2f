"""Weights from Haiku and back: outputs are equal. Its functions as layers."""
# ruff: noqa: PLW0108  (Haiku creates its modules inside of the function)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interop_weights import Case, array, compare, redrawn

from nnjax import interop, losses, nn, optim, train

hk = pytest.importorskip("haiku")
IMAGE, SEQUENCE, ROWS, TOKENS = array(3, 9, 8, 4), array(3, 5, 6), array(3, 6), np.arange(12).reshape(3, 4) % 7


@pytest.fixture(autouse=True)
def allowed_promotion():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def case(net, x, function, **fields):
    transformed = hk.transform_with_state(function)

    def weights():
        trees = transformed.init(jax.random.key(0), jnp.asarray(x, jnp.int32 if x.dtype.kind == "i" else jnp.float32))
        leaves, structure = jax.tree.flatten(trees)
        return jax.tree.unflatten(structure, [jnp.asarray(redrawn(leaf, i)) for i, leaf in enumerate(leaves)])

    def forward(trees, x):
        return transformed.apply(*trees, None, x)[0]

    return Case(net, x, weights, forward, **fields)


def unroll(make, reverse=False):
    def function(x):
        core = make()
        return hk.dynamic_unroll(core, x, core.initial_state(len(x)), time_major=False, reverse=reverse)[0]

    return function


def attend(x):
    return hk.MultiHeadAttention(2, 3, w_init=hk.initializers.VarianceScaling())(x, x, x)


def batch_norm(x):
    return hk.BatchNorm(True, True, 0.9)(x, is_training=hk.running_init())


def lenet(x):
    x = hk.max_pool(jax.nn.relu(hk.Conv2D(6, 5)(x)), (2, 2, 1), (2, 2, 1), "VALID")
    x = hk.max_pool(jax.nn.relu(hk.Conv2D(16, 5, padding="VALID")(x)), (2, 2, 1), (2, 2, 1), "VALID")
    return hk.nets.MLP([120, 84, 10])(x.reshape(len(x), -1))


CASES = {
    "dense": case(nn.dense(5), ROWS, lambda x: hk.Linear(5)(x)),
    "dense, no bias": case(nn.dense(5, bias=False), ROWS, lambda x: hk.Linear(5, with_bias=False)(x)),
    "maxout": case(nn.maxout(4, 3), ROWS, lambda x: hk.Linear(12)(x).reshape(-1, 4, 3).max(-1)),
    "conv": case(nn.conv(6, (3, 2), strides=2), IMAGE, lambda x: hk.Conv2D(6, (3, 2), stride=2)(x)),
    "conv, one axis": case(nn.conv(6, 3), SEQUENCE, lambda x: hk.Conv1D(6, 3)(x)),
    "conv, groups": case(nn.conv(6, 3, groups=2), IMAGE, lambda x: hk.Conv2D(6, 3, feature_group_count=2)(x)),
    "conv_transpose": case(
        nn.conv_transpose(6, (3, 2), strides=2, padding="VALID"),
        IMAGE, lambda x: hk.Conv2DTranspose(6, (3, 2), stride=2, padding="VALID")(x),
    ),
    "embedding": case(nn.embedding(7, 5), TOKENS, lambda x: hk.Embed(7, 5)(x)),
    "learned_positions": case(
        nn.learned_positions(9), SEQUENCE, lambda x: x + hk.Embed(9, 6)(jnp.arange(x.shape[1]))
    ),
    "batch_norm": case(nn.batch_norm(), IMAGE, batch_norm),
    "layer_norm": case(nn.layer_norm(), SEQUENCE, lambda x: hk.LayerNorm(-1, True, True)(x)),
    "layer_norm, no bias": case(nn.layer_norm(), SEQUENCE, lambda x: hk.LayerNorm(-1, True, False)(x), redraw=False),
    "rms_norm": case(nn.rms_norm(eps=1e-5), SEQUENCE, lambda x: hk.RMSNorm(-1)(x)),
    "group_norm": case(nn.group_norm(2), IMAGE, lambda x: hk.GroupNorm(2)(x)),
    "instance_norm": case(nn.instance_norm(), IMAGE, lambda x: hk.InstanceNorm(True, True)(x)),
    "multi_head_attention": case(nn.multi_head_attention(2), SEQUENCE, attend),
    "rnn": case(nn.rnn(4, activation=jax.nn.relu), SEQUENCE, unroll(lambda: hk.VanillaRNN(4))),
    "rnn, one bias": case(
        nn.rnn(4, activation=jax.nn.relu), SEQUENCE, unroll(lambda: hk.VanillaRNN(4, double_bias=False))
    ),
    "lstm": case(nn.lstm(4), SEQUENCE, unroll(lambda: hk.LSTM(4))),
    "lstm, reversed": case(nn.lstm(4, reverse=True), SEQUENCE, unroll(lambda: hk.LSTM(4), reverse=True)),
    "mlp": case(nn.mlp([6] * 11, 6), ROWS, lambda x: hk.nets.MLP([6] * 12)(x)),
    "lenet": case(nn.lenet(10), array(2, 16, 16, 1), lenet),
}  # fmt: skip


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_outputs_are_equal(name, dtype):
    compare(interop.haiku, CASES[name], dtype, cast)


def test_training_continues_from_exported_statistics():
    """Haiku divides its statistics by 1 - decay^counter, so the counter must be large."""
    transformed = hk.transform_with_state(lambda x: hk.BatchNorm(True, True, 0.9)(x, is_training=True))
    net, x = nn.batch_norm(), jnp.asarray(ROWS, jnp.float32)
    ours = {"scale": jnp.ones(6), "bias": jnp.zeros(6)}, {"mean": jnp.full(6, 2.0), "var": jnp.full(6, 3.0)}
    weights = interop.haiku.export_weights(net, x, *ours, like=transformed.init(None, x))
    _, theirs = interop.haiku.import_weights(net, x, (weights[0], transformed.apply(*weights, None, x)[1]))
    _, state = net.apply(*ours, x, train=True)
    np.testing.assert_allclose(theirs["mean"], state["mean"], rtol=1e-5)
    biased = 0.9 * 3 + (state["var"] - 0.9 * 3) * (len(x) - 1) / len(x)  # ours is the unbiased variance
    np.testing.assert_allclose(theirs["var"], biased, rtol=1e-5)


def test_gru_differs():
    """Haiku multiplies the state by the reset gate, ours its product with the weights."""
    weights = hk.transform(unroll(lambda: hk.GRU(4))).init(jax.random.key(0), jnp.asarray(SEQUENCE))
    with pytest.raises(ValueError, match=r"interop.haiku: no weights can be converted for gru\(4\)"):
        interop.haiku.import_weights(nn.gru(4), jnp.asarray(SEQUENCE), weights)


# Functions as layers -------------------------------------------------------------------------------------------------


def network(x, is_training):
    x = hk.Linear(8)(x)
    x = jax.nn.relu(hk.BatchNorm(True, True, 0.9)(x, is_training))
    return hk.Linear(2)(hk.dropout(hk.next_rng_key(), 0.1, x) if is_training else x)


def test_a_transformed_function_trains():
    net = interop.haiku.from_transformed(hk.transform_with_state(network), train="is_training")
    x = jnp.asarray(array(64, 6), jnp.float32)
    run = train.Run(net, losses.cross_entropy, optim.adam(1e-2), batch_size=16)
    result = train.fit(run, (x, (x[:, 0] > 0).astype(jnp.int32)), epochs=5, members=2)
    first, last = result.history[0]["loss"], result.history[-1]["loss"]
    assert (last < first).all()
    assert (result.ts.state["batch_norm/~/mean_ema"]["counter"] == 20).all()


def test_a_transformed_function_is_that_function():
    stateful = hk.transform_with_state(network)
    x, key = jnp.asarray(ROWS, jnp.float32), jax.random.key(1)
    net = interop.haiku.from_transformed(stateful, train="is_training")
    params, state = net.init(key, jax.ShapeDtypeStruct(x.shape, x.dtype))
    expected = stateful.init(key, jnp.zeros_like(x), is_training=True)
    jax.tree.map(np.testing.assert_array_equal, (params, state), expected)
    for mode in (False, True):
        y, new = net.apply(params, state, x, train=mode, key=key)
        z, other = stateful.apply(params, state, key, x, is_training=mode)
        jax.tree.map(np.testing.assert_array_equal, (y, new), (z, other))
    plain = interop.haiku.from_transformed(hk.transform(lambda x: hk.Linear(2)(x)))
    params, state = plain.init(key, x)
    assert state == ()
    assert plain.apply(params, state, x, train=True)[0].shape == (3, 2)


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match=r"from_transformed: expected the result of hk.transform or .*, got <function"):
        interop.haiku.from_transformed(network)
    with pytest.raises(TypeError, match=r"interop.haiku: expected parameters or \(parameters, state\), got list"):
        interop.haiku.import_weights(nn.dense(3), jnp.ones((1, 4)), [])
