"""A padded network computes the same as the network of its true widths, and its padding has no effect."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nnjax import losses, nn, optim, train
from nnjax.types import Data, TrainState

PADDED = (6, 5)
INPUTS, OUTPUTS = 3, 2
generator = np.random.default_rng(0)
X = generator.normal(size=(8, INPUTS))
Y = generator.normal(size=(8, OUTPUTS))
KEY = jax.random.key(3)
RATE = 0.4
ACTIVATIONS = [jax.nn.relu, jax.nn.softplus, jax.nn.sigmoid, jax.nn.gelu, jnp.cos]  # the last three do not map 0 to 0


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def padded_net(true, **how):
    return nn.mlp(PADDED, OUTPUTS, widths=true, **how)


def true_net(true, **how):
    return nn.mlp(true, OUTPUTS, **how)


def form(net):
    """Return the shapes of parameters and state."""
    return jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.ones((1, INPUTS))))


def corner(wide, narrow):
    """Return the block of the padded arrays that belongs to the true network."""
    return jax.tree.map(lambda a, b: a[tuple(slice(n) for n in b.shape)], wide, narrow)


def random_numbers(shapes, salt=0):
    """Return positive numbers, which are valid variances, also in the padding."""
    rng = np.random.default_rng(salt)
    return jax.tree.map(lambda a: jnp.asarray(rng.uniform(0.2, 1.0, a.shape) * 0.7), shapes)


def signed(tree):
    return jax.tree.map(lambda a: a - 0.4, tree)


def outcomes(net, params, state):
    """Return the gradients of a loss, the outputs and the new state, in training and in prediction."""

    def loss(params, x, mode):
        y, new = net.apply(params, state, x, train=mode, key=KEY)
        return jnp.square(y - Y).sum(), (y, new)

    gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
    return [gradient(params, jnp.asarray(X), mode) for mode in (True, False)]


def assert_same(wide, narrow):
    """Check that both networks have equal outcomes, and that the gradient of the padding is exactly zero."""
    for ((grads, dx), (y, new)), ((true_grads, true_dx), (true_y, true_new)) in zip(wide, narrow, strict=True):
        close((y, dx), (true_y, true_dx))
        close((corner(grads, true_grads), corner(new, true_new)), (true_grads, true_new))
        for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(true_grads), strict=True):
            rest = np.array(a)
            rest[tuple(slice(n) for n in b.shape)] = 0.0
            assert not rest.any()


def parts_of(true, **how):
    """Return parameters and state of the padded network, with numbers in the padding, and of the true one."""
    wide, narrow = form(padded_net(PADDED, **how)), form(true_net(true, **how))
    params, state = signed(random_numbers(wide[0])), random_numbers(wide[1])
    return (params, state), (corner(params, narrow[0]), corner(state, narrow[1]))


close = partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-12)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    st.tuples(*(st.integers(1, padded) for padded in PADDED)),
    st.sampled_from([None, "batch", "layer"]),
    st.sampled_from([0.0, RATE]),
)
@example((1, 1), "layer", RATE)
@example((2, 4), "batch", RATE)
def test_outputs_and_gradients_are_those_of_the_true_network(true, norm, dropout):
    """With any numbers in the padding, for traced widths."""
    how = {"activation": jax.nn.softplus, "norm": norm, "dropout": dropout}
    wide, narrow = parts_of(true, **how)

    @jax.jit
    def both(widths):
        return outcomes(padded_net(widths, **how), *wide), outcomes(true_net(true, **how), *narrow)

    assert_same(*both(jnp.asarray(true)))


def test_initial_weights_of_a_network_are_those_of_the_true_network():
    true = (2, 4)
    narrow = true_net(true).init(KEY, jnp.asarray(X))[0]
    wide = jax.jit(lambda widths: padded_net(widths).init(KEY, jnp.asarray(X))[0])(jnp.asarray(true))
    close(corner(wide, narrow), narrow)


def test_every_activation_is_masked():
    true = (2, 4)
    parts = [parts_of(true, activation=activation) for activation in ACTIVATIONS]

    @jax.jit
    def both(widths):
        return [
            (outcomes(padded_net(widths, activation=a), *wide), outcomes(true_net(true, activation=a), *narrow))
            for a, (wide, narrow) in zip(ACTIVATIONS, parts, strict=True)
        ]

    for pair in both(jnp.asarray(true)):
        assert_same(*pair)


OPTIMIZERS = {
    "adamw": (optim.adamw(0.02, weight_decay=0.1), "layer"),
    "momentum": (optax.chain(optax.clip_by_global_norm(0.5), optim.momentum(0.02)), "batch"),
    "decayed momentum": (optax.chain(optax.add_decayed_weights(0.1), optim.momentum(0.02)), None),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_equals_that_of_the_true_network(name):
    optimizer, norm = OPTIMIZERS[name]
    true, steps = (2, 4), 10
    how = {"activation": jax.nn.softplus, "norm": norm}
    data = Data(jnp.asarray(X), jnp.asarray(Y))

    def trained(net, params, state):
        run = train.Run(net, losses.squared_error, optimizer, batch_size=None)
        start = TrainState(jnp.zeros((), jnp.int32), params, state, run.optimizer.init(params), KEY)
        ts, log = run.steps(start, data, steps)
        return ts.params, ts.state, log["loss"], run.predict(ts.params, ts.state, data.x)

    wide, narrow = parts_of(true, **how)
    a, b = jax.jit(lambda w: (trained(padded_net(w, **how), *wide), trained(true_net(true, **how), *narrow)))(
        jnp.asarray(true)
    )
    close = partial(chex.assert_trees_all_close, rtol=1e-9, atol=1e-10)
    close((corner(a[0], b[0]), corner(a[1], b[1]), a[2:]), (b[0], b[1], b[2:]))
    assert abs(np.asarray(b[2][-1] - b[2][0])) > 0.1


def test_widths_are_swept_by_vmap():
    """vmap over traced widths equals the loop over integers, initial weights included; None is the padded width."""
    all_widths = jnp.array([[1, 5], [3, 2], [6, 5]])
    data = Data(jnp.asarray(X), jnp.asarray(Y))

    def after(widths):
        run = train.Run(padded_net(widths), losses.squared_error, optim.adam(0.01), batch_size=None)
        ts = run.init(KEY, data)
        ts, _ = run.steps(ts, data, 3)
        return ts.params

    swept, loop = jax.jit(lambda w: (jax.vmap(after)(w), [after(t) for t in ((1, None), (3, 2), (None, None))]))(
        all_widths
    )
    for i, params in enumerate(loop):
        chex.assert_trees_all_close(jax.tree.map(lambda a: a[i], swept), params, rtol=1e-9, atol=1e-12)  # noqa: B023


def test_parameters_have_the_form_of_the_network_without_padding():
    for norm in (None, "batch", "layer"):
        plain = nn.mlp(PADDED, OUTPUTS, norm=norm)
        for true in (PADDED, (None, 5), (6, None)):
            chex.assert_trees_all_close(
                *(net.init(KEY, jnp.asarray(X)) for net in (plain, padded_net(true, norm=norm)))
            )
        chex.assert_trees_all_equal_shapes_and_dtypes(form(plain), form(padded_net((2, 1), norm=norm)))
    assert "relu, first_features(2)" in str(nn.summary(padded_net((2, 1)), jnp.asarray(X)))


# Initialisation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [jax.nn.relu, None, jnp.tanh])
@pytest.mark.parametrize("shape", [(30, 20), (3, 2, 30, 20)])
def test_initial_weights_are_those_of_the_true_widths(activation, shape):
    """They are the draws of the true shape, and zero in the padding."""
    for i, o in ((7, 4), (30, None), (None, 20), (None, 1)):
        rows, columns = i or 30, o or 20
        expected = np.zeros(shape)
        expected[..., :rows, :columns] = nn.initializer_for(activation)(KEY, (*shape[:-2], rows, columns), jnp.float64)
        known = nn.initializer_for(activation, i, o)(KEY, shape, jnp.float64)
        np.testing.assert_array_equal(known, expected)
        if i and o:
            traced = jax.jit(lambda i, o: nn.initializer_for(activation, i, o)(KEY, shape, jnp.float64))(i, o)
            np.testing.assert_allclose(traced, expected, rtol=1e-12)


def test_initial_weights_of_a_padded_network():
    for activation, both in ((jax.nn.relu, False), (jnp.tanh, True)):
        wide, full = (nn.mlp([400, 300], 200, activation=activation, widths=w) for w in ((100, 50), None))
        params, start = (net.init(KEY, jnp.ones((1, 80)))[0] for net in (wide, full))
        first, second, last = (p["w"] for p in params if p)
        assert start[1]["w"].shape == first.shape
        expected = [2 / 180, 2 / 150, 1 / 50] if both else [2 / 80, 2 / 100, 1 / 50]
        for w, true, variance in zip((first, second, last), ((80, 100), (100, 50), (50, 200)), expected, strict=True):
            block = np.asarray(w)[: true[0], : true[1]]
            assert abs(block.var() / variance - 1) < 0.1
            assert np.count_nonzero(w) == block.size


# Mask and layer_norm ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 5)])
def test_layer_norm_of_a_width(shape):
    x, narrow = jnp.asarray(generator.normal(size=shape)), 3
    layer, plain = nn.layer_norm(width=narrow), nn.layer_norm()
    params = {"scale": jnp.arange(1.0, 6.0), "bias": jnp.arange(5.0)}
    some = {name: p[:narrow] for name, p in params.items()}
    y, _ = layer.apply(params, (), x, train=True)
    close(y[..., :narrow], plain.apply(some, (), x[..., :narrow], train=True)[0])
    assert not y[..., narrow:].any()
    traced = jax.jit(lambda w: nn.layer_norm(width=w).apply(params, (), x, train=True)[0])(narrow)
    close(traced, y)
    close(nn.layer_norm(width=5).apply(params, (), x, train=True), plain.apply(params, (), x, train=True))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_mask_and_layer_norm_keep_dtypes(dtype):
    x = jnp.ones((2, 3, 5), dtype)
    for layer in (nn.first_features(2), nn.layer_norm(width=2)):
        params, _ = layer.init(KEY, x)
        assert layer.apply(params, (), x, train=True)[0].dtype == dtype
    assert nn.first_features(np.int32(2)).name == "first_features(2)"
    assert nn.first_features(jnp.asarray(2)).name == "first_features(2)"


ONE = jnp.ones((1, 4))
ERRORS = {
    "too wide": (lambda: nn.mlp([8, 8], 2, widths=(9, 2)), ValueError,
                 r"mlp: widths\[0\] must be in 1 … 8, the padded width, got 9"),
    "zero": (lambda: nn.mlp([8, 8], 2, widths=(8, 0)), ValueError, r"mlp: widths\[1\] must be ≥ 1, got 0"),
    "an array of zero": (lambda: nn.mlp([8], 2, widths=jnp.array([0])), ValueError, r"widths\[0\] must be ≥ 1, got 0"),
    "float": (lambda: nn.mlp([8], 2, widths=(1.5,)), TypeError, r"widths\[0\] must be an integer, got 1.5"),
    "float array": (lambda: nn.mlp([8], 2, widths=(jnp.ones(()),)), TypeError, r"must be one integer, got float64"),
    "a number": (lambda: nn.mlp([8], 2, widths=3), TypeError, "mlp: widths must be a sequence, one width per"),
    "too few": (lambda: nn.mlp([8, 8], 2, widths=(1,)), ValueError, "got 1 widths for 2 layers"),
    "several": (lambda: nn.first_features(jnp.array([1, 2])), TypeError,
                r"first_features: width must be one integer, .*jax\.vmap"),
    "softmax": (lambda: nn.mlp([8], 2, widths=(1,), activation=nn.softmax), ValueError,
                "activation must be elementwise, otherwise it reads the padding; softmax"),
    "mask": (lambda: nn.first_features(5).apply((), (), ONE, train=False), ValueError,
             r"first_features\(5\): width must be in 1 … 4, the padded width, got 5"),
    "layer_norm": (lambda: nn.layer_norm(width=5).apply(nn.layer_norm().init(KEY, ONE)[0], (), ONE, train=False),
                   ValueError, "layer_norm: width must be in 1 … 4, the padded width, got 5"),
    "initializer": (lambda: nn.initializer_for(jax.nn.relu, 5)(KEY, (4, 2), jnp.float32), ValueError,
                    "inputs must be in 1 … 4, the padded width, got 5"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_wrong_arguments_are_errors(name):
    call, kind, message = ERRORS[name]
    with pytest.raises(kind, match=message):
        call()
