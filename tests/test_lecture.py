"""The ideas of the lecture in order, one test each: the claim of the notes is checked against an explicit formula."""

import itertools
from functools import partial

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
from nnjax.debug import count_flops

XOR = np.float32([[0, 0], [0, 1], [1, 0], [1, 1]]), np.float32([[0], [1], [1], [0]])


def normal(seed, *shape):
    """Return reproducible random numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@partial(jax.jit, static_argnums=0)
def predict(net, params, x):
    """Apply a sequence of layers without state to x."""
    return net.apply(params, ((),) * len(params), x, train=False)[0]


def start(net, x):
    """Return a network's initial parameters, and its prediction as a function of parameters and inputs."""
    params, state = net.init(jax.random.key(0), x)
    return params, jax.jit(lambda params, x: net.apply(params, state, x, train=False)[0])


def gradient(loss, params):
    """Return the gradient of a loss."""
    return jax.jit(jax.grad(loss))(params)


def descend(loss, params, optimizer, steps):
    """Return the parameters after `steps` optimizer steps, and the parameters after each step."""

    def step(carry, _):
        params, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        params = optax.apply_updates(params, updates)
        return (params, opt_state), params

    carry = params, optimizer.init(params)
    (params, _), path = jax.jit(lambda carry: lax.scan(step, carry, length=steps))(carry)
    return params, path


def fit(net, x, y, optimizer, steps):
    """Train a network on full batches; return its predictions and the mean squared error."""
    params, f = start(net, x)

    def loss(params):
        return losses.squared_error(f(params, x), y).mean()

    @jax.jit
    def run(params):
        params, _ = descend(loss, params, optimizer, steps)
        return f(params, x), loss(params)

    return run(params)


# --- the forward pass


def test_dot_product_is_multiply_and_add():
    x, w = normal(0, 5), normal(1, 5)
    total = 0.0
    for x_i, w_i in zip(x, w, strict=True):
        total += x_i * w_i
    y, _ = nn.dense(1, bias=False).apply({"w": w[:, None]}, (), x[None], train=False)
    np.testing.assert_allclose(y, [[total]], rtol=1e-5)


def test_matrix_vector_product_is_stacked_dot_products():
    x, W = normal(0, 5), normal(1, 3, 5)  # one row of W per output

    def dot(row):
        return nn.dense(1, bias=False).apply({"w": row[:, None]}, (), x[None], train=False)[0][0, 0]

    stacked = jax.vmap(dot)(W)
    at_once, _ = nn.dense(3, bias=False).apply({"w": W.T}, (), x[None], train=False)
    np.testing.assert_allclose(stacked, [np.dot(row, x) for row in W], rtol=1e-5)
    np.testing.assert_allclose(at_once[0], stacked, rtol=1e-5)


@pytest.mark.parametrize(("bias", "gate"), [(-1.5, [0, 0, 0, 1]), (-0.5, [0, 1, 1, 1]), (-1.0, [0, 0, 0, 1])])
def test_perceptron_with_step_fires_above_its_threshold(bias, gate):
    weights = {"w": np.ones((2, 1), np.float32), "b": np.array([bias], np.float32)}
    fires = predict(nn.perceptron(nn.heaviside), (weights, (), ()), XOR[0])
    np.testing.assert_array_equal(fires, gate)  # AND, OR, and AND again: it does not fire at w·x + b = 0


def test_perceptron_with_relu_lets_the_gradient_through_where_the_step_has_none():
    x, w, b = normal(0, 6, 3), normal(1, 3, 1), normal(2, 1)
    z = x @ w[:, 0] + b
    assert 0 < (z > 0).sum() < 6  # some units are active, some are not
    relu, step = (
        lambda w, net=net: predict(net, ({"w": w, "b": b}, (), ()), x)
        for net in (nn.perceptron(), nn.perceptron(nn.heaviside))
    )
    np.testing.assert_allclose(relu(w), np.maximum(0, z), rtol=1e-5)
    np.testing.assert_allclose(gradient(lambda w: relu(w).sum(), w)[:, 0], x[z > 0].sum(0), rtol=1e-5)
    np.testing.assert_array_equal(gradient(lambda w: step(w).sum(), w), np.zeros((3, 1)))


def test_layer_is_a_vector_of_perceptrons():
    x, W, b = normal(0, 6, 4), normal(1, 3, 4), normal(2, 3)

    def perceptron(w_i, b_i):
        return predict(nn.perceptron(), ({"w": w_i[:, None], "b": b_i[None]}, (), ()), x)

    layer = predict(nn.serial(nn.dense(3), jax.nn.relu), ({"w": W.T, "b": b}, ()), x)
    np.testing.assert_allclose(layer, jax.vmap(perceptron)(W, b).T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer, [np.maximum(0, W @ x_j + b) for x_j in x], rtol=1e-5, atol=1e-6)


def test_forward_pass_is_one_layer_after_another():
    x = normal(0, 6, 4)
    params, f = start(nn.mlp([5, 7], 2), x)
    params = jax.tree.map(lambda p: p + normal(p.size, *p.shape), params)  # initial biases are zero
    first, second, last = (jax.tree.map(np.asarray, p) for p in params if p)
    h = np.maximum(0, x @ first["w"] + first["b"])
    h = np.maximum(0, h @ second["w"] + second["b"])
    np.testing.assert_allclose(f(params, x), h @ last["w"] + last["b"], rtol=1e-4, atol=1e-5)


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
    np.testing.assert_allclose(nn.softmax(x + 1e4), expected, rtol=1e-6)  # only differences matter
    assert np.isfinite(jax.jit(jax.jacobian(nn.softmax))(x)).all()


def test_squared_error_sums_the_squares_of_the_differences():
    y, t = normal(0, 8, 3), normal(1, 8, 3)
    error = losses.squared_error(jnp.asarray(y), jnp.asarray(t))
    by_hand = [sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) for pair in zip(y, t, strict=True)]
    np.testing.assert_allclose(error, by_hand, rtol=1e-5)  # one value per example
    np.testing.assert_array_equal(losses.squared_error(jnp.asarray(t), jnp.asarray(t)), np.zeros(8))


# --- learning


def test_gradient_is_the_vector_of_partial_derivatives():
    with jax.enable_x64(True):
        x, y = np.float64(normal(0, 6, 4)), np.float64(normal(1, 6, 2))
        net = nn.serial(nn.dense(5), jnp.tanh, nn.dense(2), nn.softmax)
        layers = {"w": normal(2, 4, 5), "b": normal(3, 5)}, {"w": normal(4, 5, 2), "b": normal(5, 2)}
        theta, unravel = ravel_pytree(jax.tree.map(np.float64, (layers[0], (), layers[1], ())))

        @jax.jit
        def loss(theta):
            return losses.squared_error(predict(net, unravel(theta), x), y).mean()

        h, theta = 1e-5, np.asarray(theta)
        partial_derivatives = [(loss(theta + h * e) - loss(theta - h * e)) / (2 * h) for e in np.eye(theta.size)]
        np.testing.assert_allclose(gradient(loss, theta), partial_derivatives, rtol=1e-6, atol=1e-9)


def test_gradient_descent_converges_where_the_step_is_not_too_large():
    x = np.float32([[1], [2], [3]])
    curvature = 2 * np.mean(x**2)  # the loss is mean((w x - x)²) = curvature / 2 · (w - 1)²

    def loss(w):
        return losses.squared_error(predict(nn.serial(nn.dense(1, bias=False)), ({"w": w},), x), x).mean()

    def run(rate):
        _, path = descend(loss, jnp.zeros((1, 1)), optim.sgd(rate), 500)
        return path.reshape(-1) - 1

    rates = np.float32([0.1, 0.5, 0.99, 1.01]) * 2 / curvature  # at 2 / curvature a step overshoots by its own length
    error = jax.vmap(run)(rates)
    np.testing.assert_allclose(error[:, 9], -((1 - rates * curvature) ** 10), rtol=1e-2, atol=1e-5)
    assert (abs(error[:3, -1]) < 1e-3).all()
    assert abs(error[3, -1]) > 1000


def test_mini_batch_gradients_of_an_epoch_average_to_the_gradient_of_the_true_loss():
    x, y = normal(0, 12, 4), normal(1, 12, 2)
    params, f = start(nn.mlp([5, 7], 2), x)

    def loss(params, x, y):
        return losses.squared_error(f(params, x), y).mean()

    by_hand = np.mean([np.sum((f(params, x)[i] - y[i]) ** 2) for i in range(12)])
    np.testing.assert_allclose(loss(params, x, y), by_hand, rtol=1e-6)
    batch = jax.jit(batch_indices, static_argnums=(2, 3))
    rows = [batch(jax.random.key(0), step, 12, 4) for step in range(3)]  # one epoch
    slope = jax.jit(jax.grad(loss))
    batches, true = [slope(params, x[r], y[r]) for r in rows], slope(params, x, y)
    for *parts, whole in zip(*map(jax.tree.leaves, [*batches, true]), strict=True):
        np.testing.assert_allclose(np.mean(parts, axis=0), whole, rtol=1e-4, atol=1e-6)
        assert abs(parts[0] - whole).max() > 1e-2  # each batch gives only an estimate


def test_back_propagation_is_the_chain_rule_from_the_last_layer_to_the_first():
    x, t = normal(0, 6, 4), normal(1, 6, 2)
    params, f = start(nn.mlp([5, 7], 2), x)
    got = gradient(lambda params: losses.squared_error(f(params, x), t).mean(), params)
    first, second, last = (np.asarray(p["w"]) for p in params if p)  # biases are zero
    h1 = np.maximum(0, x @ first)
    h2 = np.maximum(0, h1 @ second)
    delta = 2 * (h2 @ last - t) / 6  # ∂loss/∂output, then ∂loss/∂(output of each earlier layer)
    backwards = [{"w": h2.T @ delta, "b": delta.sum(0)}]
    delta = (delta @ last.T) * (h2 > 0)
    backwards += [{"w": h1.T @ delta, "b": delta.sum(0)}]
    delta = (delta @ second.T) * (h1 > 0)
    backwards += [{"w": x.T @ delta, "b": delta.sum(0)}]
    for g, expected in zip((g for g in got if g), backwards[::-1], strict=True):
        np.testing.assert_allclose(g["w"], expected["w"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(g["b"], expected["b"], rtol=1e-4, atol=1e-5)


def test_back_propagation_finds_the_gradient_of_forward_mode():
    x, y = normal(0, 6, 4), normal(1, 6, 2)
    params, f = start(nn.mlp([5, 7], 2), x)
    theta, unravel = ravel_pytree(params)

    def loss(theta):
        return losses.squared_error(f(unravel(theta), x), y).mean()

    def partial_derivative(direction):
        return jax.jvp(loss, (theta,), (direction,))[1]

    forward_mode = jax.jit(jax.vmap(partial_derivative))(np.eye(theta.size, dtype=np.float32))
    np.testing.assert_allclose(gradient(loss, theta), forward_mode, rtol=1e-4, atol=1e-5)
    assert abs(forward_mode).max() > 0.1


def test_back_propagation_costs_a_few_forward_passes_however_many_parameters():
    x, y = jnp.zeros((16, 8)), jnp.zeros((16, 1))

    def operations(f, *args):
        return count_flops(f, *args).total

    for width in (2, 8, 32):
        net = nn.mlp([width, width], 1)
        params, state = jax.eval_shape(net.init, jax.random.key(0), x)
        count = sum(p.size for p in jax.tree.leaves(params))  # 27, 153, 1377

        def loss(params, net=net, state=state):
            return losses.squared_error(net.apply(params, state, x, train=False)[0], y).mean()

        forward_pass = operations(loss, params)
        one_derivative = operations(lambda p, d, loss=loss: jax.jvp(loss, (p,), (d,))[1], params, params)
        assert 1 < operations(jax.grad(loss), params) / forward_pass < 4
        assert one_derivative > forward_pass  # forward mode needs one per parameter
        assert operations(jax.jacfwd(loss), params) > count / 2 * forward_pass


# --- better steps


def test_momentum_leaves_a_local_minimum_that_plain_descent_is_stuck_in():
    def valley(theta):
        return theta**4 - 2 * theta**2 + 0.5 * theta  # two minima separated by a hill, the left one deeper

    right, left = np.sort(np.roots([4, 0, -4, 0.5]).real)[[2, 0]]
    plain, _ = descend(valley, jnp.array(2.0), optim.sgd(0.01), 500)
    heavy, _ = descend(valley, jnp.array(2.0), optim.momentum(0.01, 0.9), 500)
    np.testing.assert_allclose([plain, heavy], [right, left], rtol=1e-3)
    assert valley(heavy) < valley(plain) - 0.5


def test_rmsprop_equalises_badly_scaled_coordinates():
    curvature = jnp.array([1.0, 1024.0])

    def bowl(theta):
        return 0.5 * (curvature * theta**2).sum()

    # The steep coordinate limits plain descent to λ < 2/1024, so that the flat one hardly moves
    plain, _ = descend(bowl, jnp.ones(2), optim.sgd(1 / 1024), 100)
    np.testing.assert_allclose(plain, [(1 - 1 / 1024) ** 100, 0], rtol=1e-4)
    scaled, path = descend(bowl, jnp.ones(2), optim.rmsprop(0.01, eps=0.0), 100)
    np.testing.assert_allclose(path[:, 0], path[:, 1], rtol=1e-5)  # both coordinates follow the same path
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
    params = {"scale": jnp.array([1.0, 2.0, 3.0]), "bias": jnp.array([4.0, 5.0, 6.0])}  # as after training
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
    np.testing.assert_allclose(mean, [5, 5, 5], rtol=0.1)  # close to the statistics of all data
    np.testing.assert_allclose(var, [4, 4, 4], rtol=0.2)
    y, unchanged = layer.apply(params, state, batches[0], train=False)
    np.testing.assert_allclose(y, (batches[0] - mean) / np.sqrt(var + 1e-5), rtol=1e-4, atol=1e-5)
    alone, _ = layer.apply(params, state, batches[0][:1], train=False)
    np.testing.assert_allclose(alone, y[:1], rtol=1e-6)  # independent of the rest of the batch
    jax.tree.map(np.testing.assert_array_equal, unchanged, state)


@pytest.fixture(scope="module")
def digits_ensemble():
    """Return logits of eight networks, trained from different keys, on unseen digits; and the labels."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = np.float32(digits.data / 16), np.int32(digits.target)
    net = nn.mlp([16], 10)

    def member(key):
        params, state = net.init(key, x)

        def loss(params):
            return losses.cross_entropy(net.apply(params, state, x[:300], train=True)[0], y[:300]).mean()

        params, _ = descend(loss, params, optim.adam(0.02), 100)
        return net.apply(params, state, x[300:], train=False)[0]

    return jax.jit(jax.vmap(member))(jax.random.split(jax.random.key(0), 8)), y[300:]


def test_ensemble_error_is_the_mean_error_of_its_members_less_their_diversity(digits_ensemble):
    logits, labels = digits_ensemble
    p, truth = nn.softmax(logits), np.eye(10, dtype=np.float32)[labels]
    mean_error = np.mean([losses.squared_error(member, truth).mean() for member in p])
    diversity = np.var(p, axis=0).sum(-1).mean()
    np.testing.assert_allclose(losses.squared_error(p.mean(0), truth).mean(), mean_error - diversity, rtol=1e-4)
    assert diversity > 0.01


def test_ensemble_beats_its_members(digits_ensemble):
    logits, labels = digits_ensemble
    together = jnp.log(nn.softmax(logits).mean(0))
    accuracy, nll = ([metric(member, labels) for member in logits] for metric in (metrics.accuracy, metrics.nll))
    assert min(accuracy) > 0.8
    assert metrics.nll(together, labels) < 0.9 * np.mean(nll)
    assert metrics.accuracy(together, labels) > np.mean(accuracy) + 0.01


def test_dropout_is_an_implicit_ensemble_of_all_thinned_networks():
    x, rate = np.float32([[1, -2, 3]]), 0.25
    net = nn.serial(nn.dropout(rate), nn.dense(2))
    w, b = normal(0, 3, 2), normal(1, 2)
    params = (), {"w": w, "b": b}
    masks = np.array(list(itertools.product([0.0, 1.0], repeat=3)))  # the 2³ thinned networks and their probabilities
    chance = np.where(masks == 1, 1 - rate, rate).prod(-1)
    thinned = (masks * x / (1 - rate)) @ w + b
    np.testing.assert_allclose(predict(net, params, x)[0], chance @ thinned, rtol=1e-5)

    def draw(key):
        return net.apply(params, ((), ()), x, train=True, key=key)[0][0]

    draws = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 10_000))
    which = np.isclose(draws[:, None], thinned[None], rtol=1e-4, atol=1e-5).all(-1)
    np.testing.assert_array_equal(which.sum(1), np.ones(10_000))  # each draw is one of the networks
    np.testing.assert_allclose(which.mean(0), chance, atol=5 * np.sqrt(0.25 / 10_000))


def fifty(block):
    """Build a network of fifty blocks of width 8."""
    return nn.serial(nn.dense(8), nn.repeat(50, block), nn.dense(1))


LAYERS = nn.dense(8, w_init=lecun_normal()), jax.nn.relu
PLAIN = fifty(nn.serial(*LAYERS))
SKIP = fifty(nn.residual(*LAYERS, nn.scale(1 / 50)))  # the factor bounds the sum of all blocks


def test_skip_connections_keep_the_gradient_from_vanishing_with_depth():
    def first_and_last(net):
        params, f = start(net, XOR[0])
        g = gradient(lambda params: losses.squared_error(f(params, XOR[0]), XOR[1]).mean(), params)
        return np.linalg.norm(g[0]["w"]), np.linalg.norm(g[-1]["b"])

    first, last = first_and_last(PLAIN)
    assert first < 1e-6 * last
    first, last = first_and_last(SKIP)
    assert 0.1 * last < first < 10 * last


def test_skip_connections_let_depth_grow():
    _, plain = fit(PLAIN, *XOR, optim.adam(0.01), 300)
    _, skip = fit(SKIP, *XOR, optim.adam(0.01), 300)
    assert plain > 0.2  # fifty plain layers learn less than one
    assert skip < 1e-3  # with skip connections they train


# --- what a network can compute


def test_network_without_relu_is_one_matrix():
    x = normal(0, 6, 4)
    params, linear = start(nn.mlp([5, 7], 2, activation=lambda h: h), x)
    params = jax.tree.map(lambda p: p + normal(p.size, *p.shape), params)
    first, second, last = (jax.tree.map(np.asarray, p) for p in params if p)
    W = first["w"] @ second["w"] @ last["w"]
    b = (first["b"] @ second["w"] + second["b"]) @ last["w"] + last["b"]
    collapsed, _ = nn.dense(2).apply({"w": W, "b": b}, (), x, train=False)
    np.testing.assert_allclose(linear(params, x), collapsed, rtol=1e-3, atol=1e-3)
    _, with_relu = start(nn.mlp([5, 7], 2), x)
    assert abs(with_relu(params, x) - collapsed).max() > 1


def test_xor_is_out_of_reach_without_a_hidden_layer():
    x, y = XOR
    prediction, error = fit(nn.mlp([], 1), x, y, optim.sgd(0.3), 1000)
    np.testing.assert_allclose(prediction, 0.5 * np.ones((4, 1)), atol=1e-4)  # no better than the mean
    np.testing.assert_allclose(error, 0.25, rtol=1e-5)
    grid = np.linspace(-2, 2, 17, dtype=np.float32)
    w1, w2, b = (v.reshape(-1) for v in np.meshgrid(grid, grid, grid))
    lines = {"w": np.stack([w1, w2], -1)[..., None], "b": b[:, None]}
    answers = jax.vmap(lambda line: predict(nn.perceptron(nn.heaviside), (line, (), ()), x))(lines)
    assert (answers == y.T).mean(-1).max() == 0.75  # no line classifies more than three of the four points correctly


def test_xor_needs_one_hidden_layer():
    x, y = XOR
    hidden = {"w": np.ones((2, 2), np.float32), "b": np.float32([0, -1])}
    output = {"w": np.float32([[1], [-2]]), "b": np.zeros(1, np.float32)}
    by_hand = predict(nn.mlp([2], 1), ((), hidden, (), output), x)
    np.testing.assert_array_equal(by_hand, y)  # ReLU(x₁ + x₂) - 2 ReLU(x₁ + x₂ - 1)
    trained, error = fit(nn.mlp([8], 1), x, y, optim.adam(0.05), 500)
    np.testing.assert_array_equal(trained > 0.5, y > 0.5)
    assert error < 1e-3


def test_universal_approximation_by_construction():
    x = np.linspace(0, 2 * np.pi, 1001, dtype=np.float32)[:, None]
    for width in (4, 16, 64):  # at each knot one more unit becomes active and changes the slope
        knots = np.linspace(0, 2 * np.pi, width + 1)
        bends = np.diff(np.diff(np.sin(knots)) / np.diff(knots), prepend=0)
        hidden = {"w": np.ones((1, width), np.float32), "b": np.float32(-knots[:-1])}
        output = {"w": np.float32(bends[:, None]), "b": np.zeros(1, np.float32)}
        error = abs(predict(nn.mlp([width], 1), ((), hidden, (), output), x) - np.sin(x)).max()
        assert error < (2 * np.pi / width) ** 2 / 8 + 1e-5  # h² / 8 · max |sin''|


def test_universal_approximation_by_training():
    x = np.linspace(-1, 1, 128, dtype=np.float32)[:, None]
    y = np.sin(np.pi * x)
    line = np.polyval(np.polyfit(x[:, 0], y[:, 0], 1), x)
    _, error = fit(nn.mlp([16], 1, activation=jnp.tanh), x, y, optim.adam(0.02), 1500)
    assert error < 1e-3
    assert np.mean((line - y) ** 2) > 0.1  # the best straight line


# --- the same as elsewhere


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_equal_pytorch(dtype):
    torch = pytest.importorskip("torch")
    x, labels = normal(0, 6, 4).astype(dtype), np.arange(6) % 2
    with jax.enable_x64(dtype == "float64"):
        params, f = start(nn.mlp([5, 7], 2), x)
        ours = gradient(lambda p: losses.cross_entropy(f(p, x), jnp.asarray(labels, "int32")).mean(), params)
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
