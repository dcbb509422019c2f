"""The variants of the dense layer's product are the same function."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import nn

ROOT = Path(nnjax.__file__).parents[1]

FEW = 32  # outputs up to which the weight gradient is transposed on CPUs


def product(x, w, b):
    y = jnp.einsum("...i,io->...o", x, w)
    return y if b is None else y + jnp.broadcast_to(b, y.shape)


def dense(x, w, b, *, features_first=False):
    layer = nn.dense(w.shape[1], bias=b is not None, features_first=features_first)
    return layer.apply({"w": w, "b": b}, (), x, train=True)[0]


def features_first(x, w, b):
    return dense(x, w, b, features_first=True)


def derivatives(function, x, w, b):
    """Value, reverse and forward mode, and the gradient of a gradient, of a nonlinear loss."""

    def loss(x, w, b):
        return (jnp.tanh(function(x, w, b)) ** 2).sum()

    arguments = (0, 1) if b is None else (0, 1, 2)
    gradient = jax.grad(loss, arguments)
    forward = jax.jvp(lambda x, w: loss(x, w, b), (x, w), (jnp.cos(x), jnp.sin(w)))
    second = jax.grad(lambda w: sum((leaf**2).sum() for leaf in gradient(x, w, b)))(w)
    separate = jax.grad(loss)(x, w, b), jax.grad(loss, 1)(x, w, b)
    return function(x, w, b), gradient(x, w, b), forward, second, separate


def random(shape, seed):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize(
    ("batch", "inputs", "outputs", "bias"),
    [
        ((4,), 5, 3, True),
        ((1,), 1, 1, False),
        ((2, 3), 4, 5, True),
        ((3, 1, 2), 2, 4, False),
        ((0,), 3, 2, True),
        ((2, 0, 3), 1, 3, True),
        ((1, 1), 5, 1, True),
    ],
)
def test_both_layouts_have_the_values_and_derivatives_of_the_product(batch, inputs, outputs, bias):
    x, w, b = random((*batch, inputs), 0), random((inputs, outputs), 1), random((outputs,), 2) if bias else None
    functions = (product, dense, features_first)
    results = jax.jit(lambda x, w, b: [derivatives(function, x, w, b) for function in functions])(x, w, b)
    expected, *variants = map(jax.tree.leaves, results)
    for leaves in variants:
        for ours, theirs in zip(leaves, expected, strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batched", [(0, 0), (None, 0), (0, None)])
def test_members_have_their_own_gradients(batched):
    x, w = random((3, 40, 4), 0), random((3, 4, 2), 1)
    x, w = (x if batched[0] == 0 else x[0]), (w if batched[1] == 0 else w[0])

    def gradients(x, w):
        return jax.grad(lambda x, w: (dense(x, w, None) ** 2).sum(), (0, 1))(x, w)

    together = jax.vmap(gradients, in_axes=batched)(x, w)
    for i in range(3):
        alone = gradients(x[i] if batched[0] == 0 else x, w[i] if batched[1] == 0 else w)
        for many, single in zip(together, alone, strict=True):
            np.testing.assert_allclose(many[i], single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("outputs", [1, FEW, FEW + 1])
def test_only_cpus_transpose_the_gradient_of_few_outputs(outputs):
    x, w, b = jnp.ones((32, 256)), jnp.ones((256, outputs)), jnp.ones(outputs)

    def backward(x, w, b):
        return jax.grad(lambda w: dense(x, w, b).sum())(w)

    def has_barrier(function, platform):
        lowered = jax.jit(function).trace(x, w, b).lower(lowering_platforms=(platform,))
        return "optimization_barrier" in lowered.as_text()

    assert has_barrier(backward, "cpu") == (outputs <= FEW)
    assert not has_barrier(backward, "cuda")
    assert not has_barrier(dense, "cpu")


def test_a_network_features_first_has_the_same_parameters_and_outputs():
    x = random((2000, 4), 0)
    rows, columns = (nn.mlp([5], 3, features_first=first) for first in (False, True))
    params, state = rows.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, params, columns.init(jax.random.key(1), x)[0])
    (y, _), (transposed, _) = (net.apply(params, state, x, train=False) for net in (rows, columns))
    np.testing.assert_allclose(y, transposed, rtol=1e-5, atol=1e-6)


TINY_NETWORKS = """
import jax, jax.numpy as jnp
from nnjax import nn

for batch, hidden, outputs in ((4, 3, 2), (3, 3, 3), (2, 2, 2), (9, 3, 1), (4, 4, 2)):
    net, x = nn.mlp([hidden], outputs), jnp.ones((batch, 5))
    params, state = jax.vmap(net.init, (0, None))(jax.random.split(jax.random.key(0), 2), x)
    loss = lambda params, state: (net.apply(params, state, x, train=True)[0] ** 2).sum()
    jax.block_until_ready(jax.jit(jax.vmap(jax.grad(loss)))(params, state))
print("done")
"""


def test_tiny_networks_train_under_vmap(optimizing_compiler):
    """XLA would abort the process, and only with its optimizations."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-c", TINY_NETWORKS]
    result = subprocess.run(program, capture_output=True, text=True, check=False, env=environment)
    assert result.stdout == "done\n", result.stderr[-500:]
