"""The lecture's ideas in its order, each as one test: what the notes claim, held against a formula of its own."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.nn.initializers import lecun_normal

from nnjax import losses, metrics, nn, optim
from nnjax.data import batch_indices

XOR = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), jnp.array([[0.0], [1.0], [1.0], [0.0]])


def normal(seed, *shape):
    """Random numbers, always the same."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def start(net, x):
    """A network's first parameters, and its prediction as a function of parameters and inputs."""
    params, state = jax.jit(net.init)(jax.random.key(0), x)
    return params, jax.jit(lambda params, x: net.apply(params, state, x, train=False)[0])


def descend(loss, params, optimizer, steps):
    """The parameters after `steps` steps down the loss, and all that were passed on the way there."""

    def step(carry, _):
        params, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        params = optax.apply_updates(params, updates)
        return (params, opt_state), params

    carry = params, optimizer.init(params)
    (params, _), path = jax.jit(lambda carry: lax.scan(step, carry, length=steps))(carry)
    return params, path


def fit(net, x, y, optimizer, steps):
    """A network trained on all examples at once: its prediction of them, and the mean squared error."""
    params, predict = start(net, x)
    params, _ = descend(lambda params: losses.squared_error(predict(params, x), y).mean(), params, optimizer, steps)
    return predict(params, x), float(losses.squared_error(predict(params, x), y).mean())


# --- the forward pass


def test_dot_product_is_multiply_and_add():
    x, w = normal(0, 5), normal(1, 5)
    total = 0.0
    for x_i, w_i in zip(x, w, strict=True):
        total += x_i * w_i
    y, _ = nn.dense(1, bias=False).apply({"w": w[:, None]}, (), x[None], train=False)
    np.testing.assert_allclose(y, [[total]], rtol=1e-5)


def test_matrix_vector_product_is_stacked_dot_products():
    x, W = normal(0, 5), normal(1, 3, 5)  # one row of W for each output

    def dot(row):
        return nn.dense(1, bias=False).apply({"w": row[:, None]}, (), x[None], train=False)[0][0, 0]

    stacked = jax.vmap(dot)(W)
    at_once, _ = nn.dense(3, bias=False).apply({"w": W.T}, (), x[None], train=False)
    np.testing.assert_allclose(stacked, [np.dot(row, x) for row in W], rtol=1e-5)
    np.testing.assert_allclose(at_once[0], stacked, rtol=1e-5)


@pytest.mark.parametrize(("bias", "gate"), [(-1.5, [0, 0, 0, 1]), (-0.5, [0, 1, 1, 1]), (-1.0, [0, 0, 0, 1])])
def test_perceptron_with_step_fires_above_its_threshold(bias, gate):
    params, predict = start(nn.perceptron(nn.step), XOR[0])
    w = {"w": jnp.ones((2, 1)), "b": jnp.array([bias])}  # AND, OR, and AND once more: at w·x + b = 0 it does not fire
    np.testing.assert_array_equal(predict((w, *params[1:]), XOR[0]), gate)


def test_perceptron_with_relu_lets_the_gradient_through_where_the_step_has_none():
    x, w, b = normal(0, 6, 3), normal(1, 3, 1), normal(2, 1)
    params, relu = start(nn.perceptron(), x)
    _, step = start(nn.perceptron(nn.step), x)
    params = ({"w": w, "b": b}, *params[1:])
    z = x @ w[:, 0] + b
    assert 0 < (z > 0).sum() < 6  # some fire, some do not
    np.testing.assert_allclose(relu(params, x), np.maximum(0, z), rtol=1e-5)

    def slope(f):
        return jax.grad(lambda params: f(params, x).sum())(params)[0]["w"][:, 0]

    np.testing.assert_allclose(slope(relu), x[z > 0].sum(0), rtol=1e-5)
    np.testing.assert_array_equal(slope(step), [0, 0, 0])


def test_layer_is_a_vector_of_perceptrons():
    x, W, b = normal(0, 6, 4), normal(1, 3, 4), normal(2, 3)
    layer = nn.serial(nn.dense(3), jax.nn.relu)
    y, _ = layer.apply(({"w": W.T, "b": b}, ()), ((), ()), x, train=False)
    params, one = start(nn.perceptron(), x)
    for i in range(3):
        np.testing.assert_allclose(
            y[:, i], one(({"w": W[i][:, None], "b": b[i][None]}, *params[1:]), x), rtol=1e-5, atol=1e-6
        )
    np.testing.assert_allclose(y, [np.maximum(0, W @ x_j + b) for x_j in x], rtol=1e-5, atol=1e-6)


def test_forward_pass_is_one_layer_after_another():
    x = normal(0, 6, 4)
    params, predict = start(nn.mlp([5, 7], 3), x)
    params = jax.tree.map(lambda p: p + normal(p.size, *p.shape), params)  # biases are zero at first
    first, second, last = (p for p in params if p)
    h = np.maximum(0, x @ first["w"] + first["b"])
    h = np.maximum(0, h @ second["w"] + second["b"])
    np.testing.assert_allclose(predict(params, x), h @ last["w"] + last["b"], rtol=1e-4, atol=1e-5)


# --- the output and the loss


def test_softmax_turns_numbers_into_probabilities():
    x = 3 * normal(0, 100, 10)
    p = nn.softmax(jnp.asarray(x))
    assert (p >= 0).all()
    assert (p <= 1).all()
    np.testing.assert_allclose(p.sum(-1), np.ones(100), rtol=1e-6)
    np.testing.assert_allclose(p, np.exp(x) / np.exp(x).sum(-1, keepdims=True), rtol=1e-5)


def test_softmax_is_stable_for_large_numbers():
    x = jnp.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]])
    expected = [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]]
    np.testing.assert_allclose(nn.softmax(x), expected, rtol=1e-6)
    np.testing.assert_allclose(nn.softmax(x + 1e4), expected, rtol=1e-6)  # only differences count
    assert jnp.isfinite(jax.jacobian(nn.softmax)(x)).all()


def test_squared_error_sums_the_squares_of_the_differences():
    y, t = normal(0, 8, 3), normal(1, 8, 3)
    error = losses.squared_error(jnp.asarray(y), jnp.asarray(t))
    by_hand = [sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) for pair in zip(y, t, strict=True)]
    np.testing.assert_allclose(error, by_hand, rtol=1e-5)  # one for each example
    np.testing.assert_array_equal(losses.squared_error(jnp.asarray(t), jnp.asarray(t)), np.zeros(8))


# --- learning


def test_gradient_is_the_vector_of_partial_derivatives():
    with jax.enable_x64(True):
        x, y = jnp.asarray(normal(0, 8, 3), "float64"), jnp.asarray(normal(1, 8, 2), "float64")
        net = nn.serial(nn.dense(4), nn.batch_norm(), jnp.tanh, nn.dense(2), nn.softmax)
        params, state = net.init(jax.random.key(0), x)
        theta, unravel = ravel_pytree(params)

        @jax.jit
        def loss(theta):
            return losses.squared_error(net.apply(unravel(theta), state, x, train=True)[0], y).mean()

        h, basis = 1e-5, np.eye(theta.size)
        partial_derivatives = [(loss(theta + h * e) - loss(theta - h * e)) / (2 * h) for e in basis]
        np.testing.assert_allclose(jax.grad(loss)(theta), partial_derivatives, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("size", "converges"), [(0.1, True), (0.5, True), (0.99, True), (1.01, False)])
def test_gradient_descent_converges_where_the_step_is_not_too_large(size, converges):
    x = jnp.array([[1.0], [2.0], [3.0]])
    params, predict = start(nn.dense(1, bias=False), x)
    curvature = 2 * float(jnp.mean(x**2))  # of the loss mean((w x - x)²) = curvature / 2 · (w - 1)²
    rate, steps = size * 2 / curvature, 500  # at 2 / curvature each step lands just as far on the other side
    end, path = descend(lambda p: losses.squared_error(predict(p, x), x).mean(), params, optim.sgd(rate), steps)
    first, error, last = (float(p["w"].reshape(-1)[9 % p["w"].size]) - 1 for p in (params, path, end))
    np.testing.assert_allclose(error, (1 - rate * curvature) ** 10 * first, rtol=1e-2, atol=1e-5)
    assert abs(last) < 1e-3 if converges else abs(last) > 10 * abs(first)


def test_mini_batch_gradients_of_an_epoch_average_to_the_gradient_of_the_true_loss():
    x, y = jnp.asarray(normal(0, 12, 4)), jnp.asarray(normal(1, 12, 2))
    params, predict = start(nn.mlp([5], 2), x)

    def loss(params, x, y):
        return losses.squared_error(predict(params, x), y).mean()

    one_by_one = [loss(params, x[i : i + 1], y[i : i + 1]) for i in range(12)]
    np.testing.assert_allclose(loss(params, x, y), np.mean(one_by_one), rtol=1e-6)
    rows = [batch_indices(jax.random.key(0), step, 12, 4) for step in range(3)]
    batches = [jax.grad(loss)(params, x[r], y[r]) for r in rows]
    average = jax.tree.map(lambda *g: np.mean(g, axis=0), *batches)
    true = jax.grad(loss)(params, x, y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), average, true)
    assert abs(batches[0][1]["w"] - true[1]["w"]).max() > 1e-2  # each of them is only an estimate


def test_back_propagation_is_the_chain_rule_from_the_last_layer_to_the_first():
    x, t = normal(0, 6, 4), normal(1, 6, 2)
    params, predict = start(nn.mlp([5, 7], 2), x)
    gradient = jax.grad(lambda params: losses.squared_error(predict(params, x), t).mean())(params)
    first, second, last = (np.asarray(p["w"]) for p in params if p)  # biases are zero
    h1 = np.maximum(0, x @ first)
    h2 = np.maximum(0, h1 @ second)
    delta = 2 * (h2 @ last - t) / 6  # ∂loss/∂output, then ∂loss/∂(output of each layer before)
    backwards = [{"w": h2.T @ delta, "b": delta.sum(0)}]
    delta = (delta @ last.T) * (h2 > 0)
    backwards += [{"w": h1.T @ delta, "b": delta.sum(0)}]
    delta = (delta @ second.T) * (h1 > 0)
    backwards += [{"w": x.T @ delta, "b": delta.sum(0)}]
    for got, expected in zip((g for g in gradient if g), backwards[::-1], strict=True):
        np.testing.assert_allclose(got["w"], expected["w"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(got["b"], expected["b"], rtol=1e-4, atol=1e-5)


def loss_of_mlp(width):
    """The loss of a network with two hidden layers as a function of one vector, and where to take it."""
    x, y = jnp.asarray(normal(0, 16, 8)), jnp.asarray(normal(1, 16, 1))
    params, predict = start(nn.mlp([width, width], 1), x)
    theta, unravel = ravel_pytree(params)
    return lambda theta: losses.squared_error(predict(unravel(theta), x), y).mean(), theta


def test_back_propagation_finds_the_gradient_of_forward_mode():
    loss, theta = loss_of_mlp(6)

    def one_partial_derivative(direction):
        return jax.jvp(loss, (theta,), (direction,))[1]

    forward_mode = jax.vmap(one_partial_derivative)(jnp.eye(theta.size))
    np.testing.assert_allclose(jax.grad(loss)(theta), forward_mode, rtol=1e-4, atol=1e-5)
    assert abs(forward_mode).max() > 0.1


def test_back_propagation_costs_a_few_forward_passes_however_many_parameters():
    def operations(f, theta):
        return jax.jit(f).lower(theta).cost_analysis()["flops"]

    for width in (2, 8, 32):
        loss, theta = loss_of_mlp(width)
        forward_pass = operations(loss, theta)
        one_jvp = operations(lambda theta, loss=loss: jax.jvp(loss, (theta,), (theta,))[1], theta)
        assert 1 < operations(jax.grad(loss), theta) / forward_pass < 4  # 27 parameters or 1377
        assert one_jvp > forward_pass  # and forward mode needs one of them for each parameter
        assert operations(jax.jacfwd(loss), theta) > theta.size / 2 * forward_pass


# --- better steps


def test_momentum_leaves_a_local_minimum_that_plain_descent_is_stuck_in():
    def valley(theta):
        return theta**4 - 2 * theta**2 + 0.5 * theta  # two minima, the left one deeper, a hill between them

    right, left = np.sort(np.roots([4, 0, -4, 0.5]).real)[[2, 0]]
    plain, _ = descend(valley, jnp.array(2.0), optim.sgd(0.01), 500)
    heavy, _ = descend(valley, jnp.array(2.0), optim.momentum(0.01, 0.9), 500)
    np.testing.assert_allclose([plain, heavy], [right, left], rtol=1e-3)
    assert valley(heavy) < valley(plain) - 0.5


def test_rmsprop_equalises_badly_scaled_coordinates():
    curvature = jnp.array([1.0, 1024.0])

    def bowl(theta):
        return 0.5 * (curvature * theta**2).sum()

    # The steep coordinate limits plain descent to λ < 2/1024, and the flat one hardly moves then
    plain, _ = descend(bowl, jnp.ones(2), optim.sgd(1 / 1024), 100)
    np.testing.assert_allclose(plain, [(1 - 1 / 1024) ** 100, 0], rtol=1e-4)
    scaled, path = descend(bowl, jnp.ones(2), optim.rmsprop(0.01, eps=0.0), 100)
    np.testing.assert_allclose(path[:, 0], path[:, 1], rtol=1e-5)  # both take the same way
    assert (abs(scaled) < 0.1).all()


def test_adam_is_momentum_at_the_scale_of_rmsprop():
    b1, b2, rate = 0.9, 0.999, 0.1
    adam, rmsprop = optim.adam(rate, b1, b2, eps=0.0), optim.rmsprop(1.0, b2, eps=0.0)
    momentum = optim.momentum(1.0, b1, moving_average=True)
    a, m, r = (optimizer.init(jnp.zeros(4)) for optimizer in (adam, momentum, rmsprop))
    for t, g in enumerate(normal(0, 20, 4), start=1):
        step, a = adam.update(jnp.asarray(g), a)
        direction, m = momentum.update(jnp.asarray(g), m)
        _, r = rmsprop.update(jnp.asarray(g), r)
        expected = rate * (direction / (1 - b1**t)) / jnp.sqrt(r.nu / (1 - b2**t))
        np.testing.assert_allclose(step, expected, rtol=2e-4)
    assert a.count == 20


def test_adam_without_momentum_is_rmsprop_but_for_the_correction():
    adam, rmsprop = optim.adam(0.1, b1=0.0, b2=0.9, eps=0.0), optim.rmsprop(0.1, decay=0.9, eps=0.0)
    a, r = adam.init(jnp.zeros(4)), rmsprop.init(jnp.zeros(4))
    v = np.zeros(4)
    for t, g in enumerate(normal(0, 20, 4), start=1):
        v = 0.9 * v + 0.1 * g**2
        with_correction, a = adam.update(jnp.asarray(g), a)
        without, r = rmsprop.update(jnp.asarray(g), r)
        np.testing.assert_allclose(without, -0.1 * g / np.sqrt(v), rtol=1e-5)
        np.testing.assert_allclose(with_correction, without * np.sqrt(1 - 0.9**t), rtol=1e-5)


# --- better networks


def test_batch_norm_standardises_each_feature_over_the_batch():
    x = normal(0, 64, 3) * np.array([0.1, 1, 50], np.float32) + np.array([7, 0, -3], np.float32)
    params, state = nn.batch_norm().init(jax.random.key(0), x)
    y, _ = nn.batch_norm(eps=1e-8).apply(params, state, x, train=True)
    np.testing.assert_allclose(y.mean(0), np.zeros(3), atol=1e-4)
    np.testing.assert_allclose(y.std(0), np.ones(3), rtol=1e-4)
    params = {"scale": jnp.array([1.0, 2.0, 3.0]), "bias": jnp.array([4.0, 5.0, 6.0])}  # trained, any other size
    y, _ = nn.batch_norm(eps=1e-8).apply(params, state, x, train=True)
    np.testing.assert_allclose(y, (x - x.mean(0)) / x.std(0) * [1, 2, 3] + [4, 5, 6], rtol=1e-3, atol=1e-3)


def test_batch_norm_uses_running_statistics_at_test_time():
    batches = 2 * normal(0, 200, 32, 3) + 5
    layer = nn.batch_norm(decay=0.9)
    params, state = layer.init(jax.random.key(0), batches[0])
    mean, var = np.zeros(3), np.ones(3)
    for batch in batches:
        _, state = layer.apply(params, state, batch, train=True)
        mean, var = 0.9 * mean + 0.1 * batch.mean(0), 0.9 * var + 0.1 * batch.var(0, ddof=1)
    np.testing.assert_allclose(mean, [5, 5, 5], rtol=0.1)  # they have come close to those of all data
    np.testing.assert_allclose(var, [4, 4, 4], rtol=0.2)
    y, unchanged = layer.apply(params, state, batches[0], train=False)
    np.testing.assert_allclose(y, (batches[0] - mean) / np.sqrt(var + 1e-5), rtol=1e-4, atol=1e-5)
    alone, _ = layer.apply(params, state, batches[0][:1], train=False)
    np.testing.assert_allclose(alone, y[:1], rtol=1e-6)  # the rest of the batch no longer matters
    jax.tree.map(np.testing.assert_array_equal, unchanged, state)


def test_ensemble_error_is_the_mean_error_of_its_members_less_their_diversity():
    x, y = jnp.asarray(normal(0, 20, 4)), jnp.asarray(normal(1, 20, 2))
    net = nn.mlp([8], 2)

    def member(key):
        return net.apply(*net.init(key, x), x, train=False)[0]

    predictions = jax.vmap(member)(jax.random.split(jax.random.key(0), 10))
    mean_error = jax.vmap(losses.squared_error, (0, None))(predictions, y).mean(0)
    diversity = np.var(predictions, axis=0).sum(-1)
    np.testing.assert_allclose(losses.squared_error(predictions.mean(0), y), mean_error - diversity, rtol=1e-3)
    assert (diversity > 0.01).all()


def test_ensemble_of_networks_on_digits_beats_its_members():
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = jnp.asarray(digits.data / 16, jnp.float32), jnp.asarray(digits.target, jnp.int32)
    net, optimizer = nn.mlp([16], 10), optim.adam(1e-2)

    def member(key):
        params, state = net.init(key, x)

        def step(carry, i):
            params, opt_state = carry
            rows = batch_indices(key, i, 600, 32)

            def loss(params):
                return losses.cross_entropy(net.apply(params, state, x[rows], train=True)[0], y[rows]).mean()

            updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        (params, _), _ = lax.scan(step, (params, optimizer.init(params)), jnp.arange(300))
        return net.apply(params, state, x[600:], train=False)[0]

    logits = jax.jit(jax.vmap(member))(jax.random.split(jax.random.key(0), 8))
    together = jnp.log(nn.softmax(logits).mean(0))
    accuracy, nll = (jax.vmap(metric, (0, None))(logits, y[600:]) for metric in (metrics.accuracy, metrics.nll))
    assert accuracy.min() > 0.8
    assert metrics.nll(together, y[600:]) < 0.9 * nll.mean()
    assert metrics.accuracy(together, y[600:]) > accuracy.mean() + 0.01


def test_dropout_is_an_implicit_ensemble_of_all_thinned_networks():
    x, rate = jnp.array([[1.0, -2.0, 3.0]]), 0.25
    net = nn.serial(nn.dropout(rate), nn.dense(2))
    params, predict = start(net, x)
    masks = np.array(list(itertools.product([0.0, 1.0], repeat=3)))  # 2³ thinned networks, and how likely each is
    chance = np.where(masks == 1, 1 - rate, rate).prod(-1)
    thinned = (masks * x / (1 - rate)) @ np.asarray(params[1]["w"])
    np.testing.assert_allclose(predict(params, x)[0], chance @ thinned, rtol=1e-5)

    def draw(key):
        return net.apply(params, ((), ()), x, train=True, key=key)[0][0]

    draws = jax.vmap(draw)(jax.random.split(jax.random.key(0), 10_000))
    which = np.isclose(draws[:, None], thinned[None], rtol=1e-4, atol=1e-5).all(-1)
    np.testing.assert_array_equal(which.sum(1), np.ones(10_000))  # each draw is one of the networks
    np.testing.assert_allclose(which.mean(0), chance, atol=5 * np.sqrt(0.25 / 10_000))


def first_layer_gradient(net, x, y):
    """The size of the gradient at the first layer of a network whose first layer is dense."""
    params, predict = start(net, x)
    gradient = jax.grad(lambda params: losses.squared_error(predict(params, x), y).mean())(params)
    return jnp.linalg.norm(gradient[0]["w"])


def test_skip_connections_keep_the_gradient_from_vanishing_with_depth():
    x, y = jnp.asarray(normal(0, 32, 4)), jnp.asarray(normal(1, 32, 1))
    layers = nn.dense(16, w_init=lecun_normal()), jax.nn.relu

    def plain(depth):
        return first_layer_gradient(nn.serial(nn.dense(16), nn.repeat(depth, nn.serial(*layers)), nn.dense(1)), x, y)

    def skip(depth):
        block = nn.residual(*layers, nn.scale(1 / depth))  # the factor keeps the sum of all blocks from growing
        return first_layer_gradient(nn.serial(nn.dense(16), nn.repeat(depth, block), nn.dense(1)), x, y)

    assert plain(50) < 1e-6 * plain(1)
    assert 0.3 * skip(1) < skip(50) < 3 * skip(1)


def test_skip_connections_let_depth_grow():
    block = nn.serial(nn.dense(8, w_init=lecun_normal()), jax.nn.relu)
    _, shallow = fit(nn.serial(nn.dense(8), nn.repeat(1, block), nn.dense(1)), *XOR, optim.adam(0.03), 300)
    _, plain = fit(nn.serial(nn.dense(8), nn.repeat(50, block), nn.dense(1)), *XOR, optim.adam(0.03), 300)
    _, skip = fit(nn.residual_mlp(8, 50, 1, norm=None), *XOR, optim.adam(0.03), 300)
    assert shallow < 1e-3
    assert plain > 0.2  # fifty layers learn less than one
    assert skip < 1e-3  # unless each only adds to what came before


# --- what a network can compute


def test_network_without_relu_is_one_matrix():
    x = normal(0, 10, 4)
    params, linear = start(nn.mlp([5, 7], 3, activation=lambda h: h), x)
    params = jax.tree.map(lambda p: p + normal(p.size, *p.shape), params)
    first, second, last = (jax.tree.map(np.asarray, p) for p in params if p)
    W = first["w"] @ second["w"] @ last["w"]
    b = (first["b"] @ second["w"] + second["b"]) @ last["w"] + last["b"]
    collapsed, _ = nn.dense(3).apply({"w": W, "b": b}, (), x, train=False)
    np.testing.assert_allclose(linear(params, x), collapsed, rtol=1e-3, atol=1e-3)
    _, with_relu = start(nn.mlp([5, 7], 3), x)
    assert abs(with_relu(params, x) - collapsed).max() > 1


def test_xor_is_out_of_reach_without_a_hidden_layer():
    x, y = XOR
    prediction, error = fit(nn.mlp([], 1), x, y, optim.sgd(0.3), 1000)
    np.testing.assert_allclose(prediction, 0.5 * np.ones((4, 1)), atol=1e-4)  # nothing better than the mean
    np.testing.assert_allclose(error, 0.25, rtol=1e-5)
    grid = jnp.linspace(-2, 2, 17)
    w1, w2, b = (v.reshape(-1) for v in jnp.meshgrid(grid, grid, grid))
    params, predict = start(nn.perceptron(nn.step), x)
    lines = {"w": jnp.stack([w1, w2], -1)[..., None], "b": b[:, None]}
    answers = jax.vmap(lambda line: predict((line, *params[1:]), x))(lines)
    assert (answers == y[:, 0][None]).mean(-1).max() == 0.75  # no line has more than three of the four points right


def test_xor_needs_one_hidden_layer():
    x, y = XOR
    params, predict = start(nn.mlp([2], 1), x)
    hidden = {"w": jnp.ones((2, 2)), "b": jnp.array([0.0, -1.0])}
    output = {"w": jnp.array([[1.0], [-2.0]]), "b": jnp.zeros(1)}
    by_hand = tuple(p and (hidden if p["w"].shape == (2, 2) else output) for p in params)
    np.testing.assert_array_equal(predict(by_hand, x), y)  # ReLU(x₁ + x₂) - 2 ReLU(x₁ + x₂ - 1)
    trained, error = fit(nn.mlp([8], 1), x, y, optim.adam(0.05), 500)
    np.testing.assert_array_equal(trained > 0.5, y > 0.5)
    assert error < 1e-3


def test_universal_approximation_by_construction():
    x = np.linspace(0, 2 * np.pi, 1001, dtype=np.float32)[:, None]
    for width in (4, 16, 64):  # one hidden unit switches on at each knot and bends the line by a change of slope
        knots = np.linspace(0, 2 * np.pi, width + 1)
        bends = np.diff(np.diff(np.sin(knots)) / np.diff(knots), prepend=0)
        hidden = {"w": jnp.ones((1, width)), "b": jnp.asarray(-knots[:-1], jnp.float32)}
        output = {"w": jnp.asarray(bends[:, None], jnp.float32), "b": jnp.zeros(1)}
        params, predict = start(nn.mlp([width], 1), x)
        params = tuple(p and (hidden if p["w"].shape == (1, width) else output) for p in params)
        error = abs(predict(params, x) - np.sin(x)).max()
        assert error < (2 * np.pi / width) ** 2 / 8 + 1e-5  # h² / 8 · max |sin''|


def test_universal_approximation_by_training():
    x = jnp.linspace(-1, 1, 128)[:, None]
    y = jnp.sin(np.pi * x)
    errors = [fit(nn.mlp([width], 1, activation=jnp.tanh), x, y, optim.adam(0.02), 1500)[1] for width in (1, 2, 16)]
    _, linear = fit(nn.mlp([], 1), x, y, optim.adam(0.02), 1500)
    assert linear > errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 1e-4


# --- the same as elsewhere


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_equal_pytorch(dtype):
    torch = pytest.importorskip("torch")
    x, labels = normal(0, 32, 8).astype(dtype), np.arange(32) % 4
    with jax.enable_x64(dtype == "float64"):
        params, predict = start(nn.mlp([16, 16], 4), x)
        ours = jax.grad(lambda p: losses.cross_entropy(predict(p, x), jnp.asarray(labels, "int32")).mean())(params)
    modules = []
    for p in (p for p in params if p):
        linear = torch.nn.Linear(*p["w"].shape, dtype=getattr(torch, dtype))
        linear.weight.data, linear.bias.data = torch.tensor(np.array(p["w"]).T), torch.tensor(np.array(p["b"]))
        modules += [linear, torch.nn.ReLU()]
    theirs = torch.nn.Sequential(*modules[:-1])
    torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(labels)).backward()
    for g, linear in zip((g for g in ours if g), theirs[::2], strict=True):
        assert g["w"].dtype == dtype
        np.testing.assert_allclose(g["w"], linear.weight.grad.numpy().T, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(g["b"], linear.bias.grad.numpy(), rtol=1e-5, atol=1e-6)
