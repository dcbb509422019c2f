"""The forms of the dense layer's product are the same function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjax import nn
from nnjax.nn._affine import FEW, affine, affine_features_first, product
from nnjax.nn.shape import per_feature


def plain(x, w, b):
    y = jnp.einsum("...i,io->...o", x, w)
    return y if b is None else y + per_feature(b, y)


def derivatives(function, x, w, b):
    """Value, reverse and forward mode, and the gradient of a gradient, of a loss that is not linear."""

    def loss(x, w, b):
        return (jnp.tanh(function(x, w, b)) ** 2).sum()

    arguments = (0, 1) if b is None else (0, 1, 2)
    gradient = jax.grad(loss, arguments)
    along = jax.jvp(lambda x, w: loss(x, w, b), (x, w), (jnp.cos(x), jnp.sin(w)))
    twice = jax.grad(lambda w: sum((part**2).sum() for part in gradient(x, w, b)))(w)
    of_one = jax.grad(loss)(x, w, b), jax.grad(loss, 1)(x, w, b)
    return function(x, w, b), gradient(x, w, b), along, twice, of_one


def random(shape, seed):
    return jax.random.normal(jax.random.key(seed), shape)


@settings(max_examples=25, deadline=None)
@given(
    lead=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 5),
    bias=st.booleans(),
)
def test_both_orders_are_the_plain_product_and_so_are_their_derivatives(lead, inputs, outputs, bias):
    x, w, b = random((*lead, inputs), 0), random((inputs, outputs), 1), random((outputs,), 2) if bias else None
    expected = jax.tree.leaves(derivatives(plain, x, w, b))
    for form in (affine, affine_features_first):
        found = jax.tree.leaves(jax.jit(derivatives, static_argnums=0)(form, x, w, b))
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batched", [(0, 0), (None, 0), (0, None)])
def test_members_have_the_gradients_of_each(batched):
    x, w = random((3, 40, 4), 0), random((3, 4, 2), 1)
    x, w = (x if batched[0] == 0 else x[0]), (w if batched[1] == 0 else w[0])

    def gradients(x, w):
        return jax.grad(lambda x, w: (product(x, w) ** 2).sum(), (0, 1))(x, w)

    together = jax.vmap(gradients, in_axes=batched)(x, w)
    for i in range(3):
        each = gradients(x[i] if batched[0] == 0 else x, w[i] if batched[1] == 0 else w)
        for many, one in zip(together, each, strict=True):
            np.testing.assert_allclose(many[i], one, rtol=1e-4, atol=1e-5)


def lowered(function, platform, *args):
    return jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("outputs", [1, FEW, FEW + 1])
def test_the_gradient_of_few_outputs_is_turned_over_on_a_cpu_alone(outputs):
    x, w, b = jnp.ones((32, 256)), jnp.ones((256, outputs)), jnp.ones(outputs)

    def backward(x, w, b):
        return jax.grad(lambda w: affine(x, w, b).sum())(w)

    def has_barrier(function, platform):
        lowered = jax.jit(function).trace(x, w, b).lower(lowering_platforms=(platform,))
        return "optimization_barrier" in lowered.as_text()

    assert has_barrier(backward, "cpu") == (outputs <= FEW)
    assert not has_barrier(backward, "cuda")
    assert not has_barrier(affine, "cpu")


def test_a_network_features_first_has_the_same_parameters_and_outputs():
    x = random((2000, 4), 0)
    rows, columns = (nn.mlp([5], 3, features_first=first) for first in (False, True))
    params, state = rows.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, params, columns.init(jax.random.key(1), x)[0])
    (one, _), (other, _) = (net.apply(params, state, x, train=False) for net in (rows, columns))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
