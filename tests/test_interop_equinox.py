"""Weights from Equinox and back: outputs are equal. Its modules as layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interop_weights import Case, array, compare, redrawn

from nnjax import interop, losses, nn, optim, train

eqx = pytest.importorskip("equinox")
IMAGE, SEQUENCE, ROWS, TOKENS = array(3, 9, 8, 4), array(3, 5, 6), array(3, 6), np.arange(12).reshape(3, 4) % 7
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def allowed_promotion():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def redraw(tree):
    leaves, structure = jax.tree.flatten(tree)
    new = [jnp.asarray(redrawn(leaf, i)) if eqx.is_inexact_array(leaf) else leaf for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, new)


def case(net, x, make, *, image=False, call=lambda m, x: m(x), **fields):
    """Return the case of a module, which is called with one example, channels first if it is an image."""

    def forward(module, x):
        x = jnp.moveaxis(x, -1, 1) if image else x
        y = jax.vmap(lambda x: call(module, x))(x)
        return jnp.moveaxis(y, 1, -1) if image and y.ndim > 2 else y

    return Case(net, x, lambda: redraw(make()), forward, **fields)


def stateful_case(net, x, make, *, image=False, **fields):
    def forward(weights, x):
        module, state = weights
        x = jnp.moveaxis(x, -1, 1) if image else x
        module = eqx.nn.inference_mode(module)
        y, _ = jax.vmap(module, (0, None), (0, None), axis_name="batch")(x, jax.tree.map(lambda leaf: leaf, state))
        return jnp.moveaxis(y, 1, -1) if image and y.ndim > 2 else y

    return Case(net, x, lambda: redraw(make()), forward, **fields)


def every(m, x):
    return jax.vmap(m)(x)


def unroll(m, x):
    lstm = isinstance(m, eqx.nn.LSTMCell)
    zero = jnp.zeros(4, x.dtype)

    def step(carry, x):
        carry = m(x, carry)
        return carry, carry[0] if lstm else carry

    return jax.lax.scan(step, (zero, zero) if lstm else zero, x)[1]


def attention(**options):
    return lambda: eqx.nn.MultiheadAttention(2, 6, key=KEY, **options)


BIASES = {f"use_{part}_bias": True for part in ("query", "key", "value", "output")}


def batch_norm(mode):
    return lambda: eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, "batch", mode=mode)


def spectral(layer):
    return lambda: eqx.nn.make_with_state(eqx.nn.SpectralNorm)(layer(), "weight", key=KEY)


def lenet():
    return eqx.nn.Sequential([
        eqx.nn.Conv2d(1, 6, 5, padding=2, key=KEY), eqx.nn.Lambda(jax.nn.relu), eqx.nn.MaxPool2d(2, 2),
        eqx.nn.Conv2d(6, 16, 5, key=KEY), eqx.nn.Lambda(jax.nn.relu), eqx.nn.MaxPool2d(2, 2), eqx.nn.Lambda(jnp.ravel),
        eqx.nn.Linear(64, 120, key=KEY), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Linear(120, 84, key=KEY),
        eqx.nn.Lambda(jax.nn.relu), eqx.nn.Linear(84, 10, key=KEY),
    ])  # fmt: skip


CASES = {
    "dense": case(nn.dense(5), ROWS, lambda: eqx.nn.Linear(6, 5, key=KEY)),
    "dense, no bias": case(nn.dense(5, bias=False), ROWS, lambda: eqx.nn.Linear(6, 5, use_bias=False, key=KEY)),
    "maxout": case(nn.maxout(4, 3), ROWS, lambda: eqx.nn.Linear(6, 12, key=KEY),
                   call=lambda m, x: m(x).reshape(4, 3).max(-1)),
    "conv": case(nn.conv(6, (3, 2), padding="VALID"), IMAGE, lambda: eqx.nn.Conv2d(4, 6, (3, 2), key=KEY), image=True),
    "conv, one axis": case(nn.conv(5, 3), SEQUENCE, lambda: eqx.nn.Conv1d(6, 5, 3, padding=1, key=KEY), image=True),
    "conv, groups": case(nn.conv(6, 3, groups=2), IMAGE, lambda: eqx.nn.Conv2d(4, 6, 3, padding=1, groups=2, key=KEY),
                         image=True),
    "conv_transpose": case(
        nn.conv_transpose(6, (3, 2), strides=2, padding="VALID"), IMAGE,
        lambda: eqx.nn.ConvTranspose2d(4, 6, (3, 2), stride=2, key=KEY), image=True,
    ),
    "embedding": case(nn.embedding(7, 5), TOKENS, lambda: eqx.nn.Embedding(7, 5, key=KEY), call=every),
    "learned_positions": case(
        nn.learned_positions(9), SEQUENCE, lambda: eqx.nn.Embedding(9, 6, key=KEY),
        call=lambda m, x: x + jax.vmap(m)(jnp.arange(len(x))),
    ),
    "batch_norm": stateful_case(nn.batch_norm(), IMAGE, batch_norm("batch"), image=True),
    "batch_norm, ema": stateful_case(nn.batch_norm(), IMAGE, batch_norm("ema"), image=True),
    "layer_norm": case(nn.layer_norm(), SEQUENCE, lambda: eqx.nn.LayerNorm(6), call=every),
    "layer_norm, no bias": case(nn.layer_norm(), SEQUENCE, lambda: eqx.nn.LayerNorm(6, use_bias=False), call=every,
                                redraw=False),
    "rms_norm": case(nn.rms_norm(eps=1e-5), SEQUENCE, lambda: eqx.nn.RMSNorm(6, use_bias=False), call=every),
    "group_norm": case(nn.group_norm(2), IMAGE, lambda: eqx.nn.GroupNorm(2, 4), image=True),
    "instance_norm": case(nn.instance_norm(), IMAGE, lambda: eqx.nn.GroupNorm(4, 4), image=True),
    "multi_head_attention": case(nn.multi_head_attention(2), SEQUENCE, attention(**BIASES),
                                 call=lambda m, x: m(x, x, x)),
    "multi_head_attention, no bias": case(nn.multi_head_attention(2, bias=False), SEQUENCE, attention(),
                                          call=lambda m, x: m(x, x, x)),
    "lstm": case(nn.lstm(4), SEQUENCE, lambda: eqx.nn.LSTMCell(6, 4, key=KEY), call=unroll),
    "gru": case(nn.gru(4), SEQUENCE, lambda: eqx.nn.GRUCell(6, 4, key=KEY), call=unroll),
    "gru, no bias": case(nn.gru(4), SEQUENCE, lambda: eqx.nn.GRUCell(6, 4, use_bias=False, key=KEY), call=unroll,
                         redraw=False),
    "weight_norm": case(nn.weight_norm(nn.dense(5)), ROWS,
                        lambda: eqx.nn.WeightNorm(eqx.nn.Linear(6, 5, key=KEY))),
    "weight_norm, conv": case(nn.weight_norm(nn.conv(6, 3, padding="VALID")), IMAGE,
                              lambda: eqx.nn.WeightNorm(eqx.nn.Conv2d(4, 6, 3, key=KEY)), image=True),
    "spectral_norm": stateful_case(nn.spectral_norm(nn.dense(5)), ROWS,
                                   spectral(lambda: eqx.nn.Linear(6, 5, key=KEY))),
    "spectral_norm, conv": stateful_case(nn.spectral_norm(nn.conv(6, 3, padding="VALID")), IMAGE,
                                         spectral(lambda: eqx.nn.Conv2d(4, 6, 3, key=KEY)), image=True),
    "mlp": case(nn.mlp([6] * 11, 6), ROWS, lambda: eqx.nn.MLP(6, 6, 6, 11, key=KEY)),
    "lenet": case(nn.lenet(10), array(2, 16, 16, 1), lenet, image=True),
}  # fmt: skip


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_outputs_are_equal(name, dtype):
    compare(interop.equinox, CASES[name], dtype, cast)


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_statistics_after_training_are_those_of_prediction(mode):
    module, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(6, "batch", momentum=0.9, mode=mode)
    x = jnp.asarray(ROWS, jnp.float32)
    for _ in range(3):
        _, state = jax.vmap(module, (0, None), (0, None), axis_name="batch")(x, state)
    params, ours = interop.equinox.import_weights(nn.batch_norm(), x, (module, state))
    expected = jax.vmap(eqx.nn.inference_mode(module), (0, None), (0, None), axis_name="batch")(x, state)[0]
    np.testing.assert_allclose(nn.batch_norm().apply(params, ours, x, train=False)[0], expected, atol=1e-5)
    exported = interop.equinox.export_weights(nn.batch_norm(), x, params, ours, like=(module, state))
    _, after = jax.vmap(exported[0], (0, None), (0, None), axis_name="batch")(x, exported[1])
    _, theirs = interop.equinox.import_weights(nn.batch_norm(), x, (exported[0], after))
    np.testing.assert_allclose(theirs["mean"], 0.9 * ours["mean"] + 0.1 * x.mean(0), rtol=1e-4)  # no jump


def test_a_module_with_statistics_needs_its_state():
    module, _ = eqx.nn.make_with_state(eqx.nn.BatchNorm)(6, "batch", mode="batch")
    with pytest.raises(ValueError, match=r"interop.equinox: BatchNorm has statistics; pass \(module, state\)"):
        interop.equinox.import_weights(nn.batch_norm(), jnp.ones((2, 6)), module)
    with pytest.raises(TypeError, match=r"interop.equinox: expected a module or \(module, state\), got dict"):
        interop.equinox.import_weights(nn.batch_norm(), jnp.ones((2, 6)), {})


# Modules as layers ---------------------------------------------------------------------------------------------------


class Network(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    last: eqx.nn.Linear
    table: jax.Array  # integers, which are not trained

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.first, self.last = eqx.nn.Linear(6, 8, key=one), eqx.nn.Linear(8, 2, key=two)
        self.norm, self.dropout = eqx.nn.BatchNorm(8, "batch", mode="batch", momentum=0.9), eqx.nn.Dropout(0.5)
        self.table = jnp.arange(6)

    def __call__(self, x, state, *, key=None):
        x, state = self.norm(self.first(x[self.table]), state)
        return self.last(self.dropout(jax.nn.relu(x), key=key)), state


def test_a_module_with_state_trains():
    net = interop.equinox.from_module(eqx.nn.make_with_state(Network))
    x = jnp.asarray(array(64, 6), jnp.float32)
    run = train.Run(net, losses.cross_entropy, optim.adam(1e-2), batch_size=16)
    result = train.fit(run, (x, (x[:, 0] > 0).astype(jnp.int32)), epochs=5, members=2)
    assert (result.history[-1]["loss"] < result.history[0]["loss"]).all()
    module = result.ts.params
    assert module.first.weight.shape == (2, 8, 6)
    assert module.table is None  # not trained


def test_a_module_is_that_module():
    net = interop.equinox.from_module(lambda key: eqx.nn.MLP(6, 2, 8, 1, key=key))
    x = jnp.asarray(ROWS, jnp.float32)
    params, state = net.init(KEY, jax.ShapeDtypeStruct(x.shape, x.dtype))
    module = eqx.nn.MLP(6, 2, 8, 1, key=KEY)
    assert eqx.tree_equal(params, eqx.filter(module, eqx.is_inexact_array)) == True  # noqa: E712  (an array)
    assert state == ()
    np.testing.assert_array_equal(net.apply(params, state, x, train=False)[0], jax.vmap(module)(x))


def test_modes_and_keys_reach_the_module():
    net = interop.equinox.from_module(eqx.nn.make_with_state(Network))
    x = jnp.asarray(ROWS, jnp.float32)
    params, state = net.init(KEY, x)
    one, two = (net.apply(params, state, x, train=True, key=jax.random.key(i)) for i in range(2))
    assert (one[0] != two[0]).any()
    assert jax.tree.structure(one[1]) == jax.tree.structure(state)
    still, same = net.apply(params, state, x, train=False)
    np.testing.assert_array_equal(still, net.apply(params, state, x, train=False, key=KEY)[0])
    assert same is state
