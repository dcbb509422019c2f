"""Layers, losses and optimizers, with their gradients, equal PyTorch's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import losses, nn, optim

torch = pytest.importorskip("torch")
F = torch.nn.functional
rng = np.random.default_rng(0)


def array(*shape):
    return rng.normal(size=shape)


def first(a):
    """(batch, *spatial, channels) -> (batch, channels, *spatial)"""
    return np.moveaxis(a, -1, 1)


def check(layer, params, x, theirs, *, rtol=1e-9):
    """Compare the output, and the gradients of a random projection of it by parameters and x.

    `theirs` is a function of torch tensors in our layout: (params, x) -> y.
    """
    with jax.enable_x64(True):
        ours, x_array = jax.tree.map(jnp.asarray, (params, x))
        projection = array(*jax.eval_shape(lambda: layer.apply(ours, (), x_array, train=False)[0]).shape)

        def f(p, x):
            y, _ = layer.apply(p, (), x, train=False)
            return jnp.vdot(jnp.asarray(projection), y), y

        floating = jnp.issubdtype(x_array.dtype, jnp.floating)
        grads, y = jax.jit(jax.grad(f, argnums=(0, 1) if floating else (0,), has_aux=True))(ours, x_array)
    names = sorted(params)
    leaves = [torch.tensor(params[name], requires_grad=True) for name in names]
    tx = torch.tensor(x, requires_grad=bool(floating))
    ty = theirs(dict(zip(names, leaves, strict=True)), tx)
    np.testing.assert_allclose(y, ty.detach().numpy(), rtol=rtol, atol=1e-12)
    (ty * torch.tensor(projection)).sum().backward()
    expected = [*(leaf.grad for leaf in leaves), *([tx.grad] if floating else [])]
    got = [*(grads[0][name] for name in names), *grads[1:]]
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=rtol, atol=1e-12)


def test_dense():
    check(nn.dense(4), {"w": array(3, 4), "b": array(4)}, array(5, 3), lambda p, x: F.linear(x, p["w"].T, p["b"]))


CONVS = [  # spatial shape, kernel_size, options of ours, options of torch
    ((7,), (3,), {"padding": "VALID"}, {}),
    ((7,), (3,), {}, {"padding": 1}),
    ((8,), (3,), {"strides": 2, "padding": ((1, 1),)}, {"stride": 2, "padding": 1}),
    ((9,), (3,), {"dilation": 2, "padding": "VALID"}, {"dilation": 2}),
    ((6, 5), (3, 2), {"padding": "VALID"}, {}),
    ((6, 5), (3, 2), {"strides": (2, 1), "padding": ((1, 1), (0, 0))}, {"stride": (2, 1), "padding": (1, 0)}),
    ((7, 7), (3, 3), {"dilation": (2, 1), "padding": "VALID"}, {"dilation": (2, 1)}),
    ((6, 5), (3, 3), {"groups": 2}, {"padding": 1, "groups": 2}),
    ((4, 4, 4), (2, 2, 2), {"padding": "VALID", "strides": 2}, {"stride": 2}),
    ((4, 3, 3), (3, 3, 3), {}, {"padding": 1}),
]


@pytest.mark.parametrize(("spatial", "window", "ours", "theirs"), CONVS)
def test_conv(spatial, window, ours, theirs):
    inputs, features = 4, 6
    params = {"w": array(*window, inputs // ours.get("groups", 1), features), "b": array(features)}
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(spatial)]

    def reference(p, x):
        w = torch.movedim(p["w"], (-1, -2), (0, 1))
        return torch.movedim(function(torch.movedim(x, -1, 1), w, p["b"], **theirs), 1, -1)

    check(nn.conv(features, window, **ours), params, array(2, *spatial, inputs), reference)


def test_conv_padded_on_one_side():
    def reference(p, x):
        x = F.pad(torch.movedim(x, -1, 1), (0, 2, 1, 0))  # the last axis comes first
        return torch.movedim(F.conv2d(x, torch.movedim(p["w"], (-1, -2), (0, 1))), 1, -1)

    layer = nn.conv(3, (3, 2), padding=((1, 0), (0, 2)), bias=False)
    check(layer, {"w": array(3, 2, 4, 3)}, array(2, 5, 4, 4), reference)


POOLS = [
    ((6,), 2, {}, {}),
    ((7, 6), (3, 2), {"strides": (2, 1)}, {"stride": (2, 1)}),
    ((7, 6), 3, {"strides": 2, "padding": ((1, 1), (1, 1))}, {"stride": 2, "padding": 1}),
    ((4, 4, 5), 2, {"strides": 1}, {"stride": 1}),
]


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(("spatial", "window", "ours", "theirs"), POOLS)
def test_pools(kind, spatial, window, ours, theirs):
    if kind == "avg":
        theirs = {**theirs, "count_include_pad": False}
    function = getattr(F, f"{kind}_pool{len(spatial)}d")
    layer = {"max": nn.max_pool, "avg": nn.avg_pool}[kind](window, **ours)
    check(layer, {}, array(2, *spatial, 3),
          lambda p, x: torch.movedim(function(torch.movedim(x, -1, 1), window, **theirs), 1, -1))  # fmt: skip


def test_global_avg_pool():
    check(nn.global_avg_pool(), {}, array(2, 4, 3, 5), lambda p, x: x.mean((1, 2)))


def test_layer_norm():
    check(nn.layer_norm(), {"scale": array(6), "bias": array(6)}, array(2, 3, 6),
          lambda p, x: F.layer_norm(x, (6,), p["scale"], p["bias"], 1e-5))  # fmt: skip


def test_embedding():
    check(nn.embedding(7, 3), {"w": array(7, 3)}, rng.integers(0, 7, (4, 5)), lambda p, x: F.embedding(x, p["w"]))


@pytest.mark.parametrize("spatial", [(), (4, 3)])
def test_batch_norm_over_several_steps(spatial):
    """Training and running statistics; our decay is one minus torch's momentum."""
    layer, theirs = (
        nn.batch_norm(decay=0.7),
        {0: torch.nn.BatchNorm1d, 2: torch.nn.BatchNorm2d}[len(spatial)](3, momentum=0.3, dtype=torch.float64),
    )
    scale, bias = array(3), array(3)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(scale))
        theirs.bias.copy_(torch.tensor(bias))
    with jax.enable_x64(True):
        params = {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}
        _, state = layer.init(jax.random.key(0), jnp.zeros((5, *spatial, 3)))

        @functools.partial(jax.jit, static_argnames="train")
        def gradients(params, state, x, projection, *, train):
            def f(params, x):
                y, new = layer.apply(params, state, x, train=train)
                return jnp.vdot(projection, y), (y, new)

            return jax.grad(f, argnums=(0, 1), has_aux=True)(params, x)

        for train in (False, True, True, True, False):
            x, projection = array(5, *spatial, 3), array(5, *spatial, 3)
            theirs.train(train)
            theirs.zero_grad()
            tx = torch.tensor(first(x), requires_grad=True)
            ty = theirs(tx)
            (ty * torch.tensor(first(projection))).sum().backward()
            (grads, dx), (y, state) = gradients(params, state, jnp.asarray(x), jnp.asarray(projection), train=train)
            np.testing.assert_allclose(first(y), ty.detach().numpy(), rtol=1e-9)
            np.testing.assert_allclose(first(dx), tx.grad.numpy(), rtol=1e-7, atol=1e-12)
            np.testing.assert_allclose(grads["scale"], theirs.weight.grad.numpy(), rtol=1e-9)
            np.testing.assert_allclose(grads["bias"], theirs.bias.grad.numpy(), rtol=1e-9)
            np.testing.assert_allclose(state["mean"], theirs.running_mean.numpy(), rtol=1e-9)
            np.testing.assert_allclose(state["var"], theirs.running_var.numpy(), rtol=1e-9)


def test_a_network():
    """A small LeNet whose weights are copied by hand."""
    net = nn.serial(nn.conv(4, (3, 3)), jax.nn.relu, nn.max_pool(2), nn.flatten(), nn.dense(5))
    params, state = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 6, 6, 2)))
    x = jnp.asarray(array(3, 6, 6, 2), jnp.float32)
    y, _ = jax.jit(net.apply, static_argnames="train")(params, state, x, train=False)
    w, b = (torch.tensor(np.array(params[0][name])) for name in ("w", "b"))
    h = F.conv2d(torch.tensor(first(np.array(x))), torch.movedim(w, (-1, -2), (0, 1)), b, padding=1)
    h = torch.movedim(F.max_pool2d(F.relu(h), 2), 1, -1).flatten(1)
    w, b = (torch.tensor(np.array(params[4][name])) for name in ("w", "b"))
    np.testing.assert_allclose(y, (h @ w + b).numpy(), rtol=1e-4, atol=1e-5)


LABELS = rng.integers(0, 3, 4)
SOFT = rng.dirichlet(np.ones(3), 4)
LOSSES = {
    "squared_error": (losses.squared_error, array(4, 3), lambda z, t: F.mse_loss(z, t, reduction="none").sum(1)),
    "mean_squared_error": (losses.mean_squared_error, array(4, 3),
                           lambda z, t: F.mse_loss(z, t, reduction="none").mean(1)),
    "huber": (losses.huber, array(4, 3), lambda z, t: F.huber_loss(z, t, reduction="none").sum(1)),
    "huber, delta": (lambda z, t: losses.huber(z, t, delta=0.3), array(4, 3),
                     lambda z, t: F.huber_loss(z, t, reduction="none", delta=0.3).sum(1)),
    "labels": (losses.cross_entropy, LABELS, lambda z, t: F.cross_entropy(z, t, reduction="none")),
    "probabilities": (losses.cross_entropy, SOFT, lambda z, t: F.cross_entropy(z, t, reduction="none")),
    "smoothed": (lambda z, t: losses.cross_entropy(z, t, label_smoothing=0.1), LABELS,
                 lambda z, t: F.cross_entropy(z, t, reduction="none", label_smoothing=0.1)),
    "smoothed probabilities": (lambda z, t: losses.cross_entropy(z, t, label_smoothing=0.1), SOFT,
                               lambda z, t: F.cross_entropy(z, t, reduction="none", label_smoothing=0.1)),
    "binary": (losses.binary_cross_entropy, rng.integers(0, 2, (4, 3)).astype(float),
               lambda z, t: F.binary_cross_entropy_with_logits(z, t, reduction="none").sum(1)),
}  # fmt: skip


@pytest.mark.parametrize(("ours", "target", "theirs"), LOSSES.values(), ids=LOSSES.keys())
def test_losses(ours, target, theirs):
    z, weights = 2 * array(4, 3), array(4)
    with jax.enable_x64(True):
        t = jnp.asarray(target)

        def f(z):
            loss = ours(z, t)
            return jnp.vdot(jnp.asarray(weights), loss), loss

        grad, loss = jax.jit(jax.grad(f, has_aux=True))(jnp.asarray(z))
    tz = torch.tensor(z, requires_grad=True)
    tloss = theirs(tz, torch.tensor(target))
    (tloss * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(loss, tloss.detach().numpy(), rtol=1e-9)
    np.testing.assert_allclose(grad, tz.grad.numpy(), rtol=1e-7, atol=1e-12)


O = torch.optim  # noqa: E741
OPTIMIZERS = {
    "sgd": (optim.sgd(0.1), lambda p: O.SGD(p, 0.1)),
    "momentum": (optim.momentum(0.1, 0.8), lambda p: O.SGD(p, 0.1, momentum=0.8)),
    "nesterov": (optim.nesterov(0.1, 0.8), lambda p: O.SGD(p, 0.1, momentum=0.8, nesterov=True)),
    "rmsprop": (optim.rmsprop(0.1, 0.95, 1e-3, eps_in_sqrt=False), lambda p: O.RMSprop(p, 0.1, alpha=0.95, eps=1e-3)),
    "adagrad": (optim.adagrad(0.1, 0.2, 0.0), lambda p: O.Adagrad(p, 0.1, initial_accumulator_value=0.2, eps=0)),
    "adam": (optim.adam(0.1, 0.8, 0.99, 1e-3), lambda p: O.Adam(p, 0.1, (0.8, 0.99), 1e-3)),
    "adamw": (optim.adamw(0.1, weight_decay=0.1), lambda p: O.AdamW(p, 0.1, weight_decay=0.1)),
}


@pytest.mark.parametrize(("ours", "theirs"), OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_optimizers_take_the_same_steps(ours, theirs):
    """Scripted gradients of many magnitudes; the parameters after every step."""
    gradients = rng.normal(size=(50, 8)) * 10.0 ** np.linspace(-6, 3, 8)
    parameter = torch.tensor(array(8), requires_grad=True)
    other = theirs([parameter])
    with jax.enable_x64(True):
        params = jnp.asarray(parameter.detach().numpy().copy())
        state, update = ours.init(params), jax.jit(ours.update)
        for g in gradients:
            parameter.grad = torch.tensor(g)
            before = parameter.detach().numpy().copy()
            other.step()
            updates, state = update(jnp.asarray(g), state, params)
            expected = parameter.detach().numpy() - before
            tolerance = 1e-15 * np.abs(before).max() + 1e-12
            np.testing.assert_allclose(updates, expected, rtol=1e-8, atol=tolerance)
            params = jnp.asarray(parameter.detach().numpy().copy())
