"""The forms of the dense layer's product, of which a device and a shape choose one, are the same function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjax import nn
from nnjax.nn.affine import FEW, MANY, NARROW, affine, as_columns, as_rows, product
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
def test_columns_and_rows_are_the_plain_product_and_so_are_their_derivatives(lead, inputs, outputs, bias):
    x, w, b = random((*lead, inputs), 0), random((inputs, outputs), 1), random((outputs,), 2) if bias else None
    expected = jax.tree.leaves(derivatives(plain, x, w, b))
    for form in (as_rows, as_columns):
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


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "columns", "turned_over"),
    [
        (MANY * NARROW, NARROW, NARROW, True, False),
        (MANY * NARROW - 1, NARROW, NARROW, False, False),
        (10_000, NARROW + 1, FEW, False, True),
        (32, 256, FEW, False, True),
        (32, 256, FEW + 1, False, False),
    ],
)
def test_a_cpu_has_the_form_that_suits_the_shape_and_others_the_plain_one(rows, inputs, outputs, columns, turned_over):
    x, w, b = jnp.ones((rows, inputs)), jnp.ones((inputs, outputs)), jnp.ones(outputs)

    def backward(x, w, b):
        return jax.grad(lambda w: affine(x, w, b).sum())(w)

    assert ("optimization_barrier" in lowered(affine, "cpu", x, w, b)) == columns
    assert ("optimization_barrier" in lowered(backward, "cpu", x, w, b)) == (columns or turned_over)
    assert "optimization_barrier" not in lowered(affine, "cuda", x, w, b)
    assert "optimization_barrier" not in lowered(backward, "cuda", x, w, b)


def test_a_dense_layer_has_the_same_values_for_few_rows_and_for_many():
    layer = nn.dense(3)
    x = random((2000, 4), 0)
    params, state = layer.init(jax.random.key(1), x)
    many, _ = layer.apply(params, state, x, train=True)
    few, _ = layer.apply(params, state, x[:5], train=True)
    np.testing.assert_allclose(many[:5], few, rtol=1e-6, atol=1e-6)
