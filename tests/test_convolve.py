"""A convolutional layer is XLA's convolution, whichever variant a device runs."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nnjax import nn


@st.composite
def convolutions(draw):
    rank = draw(st.integers(1, 3))

    def sizes(low, high):
        return draw(st.tuples(*[st.integers(low, high)] * rank))

    x = (2, *sizes(1, 6), draw(st.integers(1, 3)))
    layer = {
        "features": draw(st.integers(1, 3)),
        "kernel_size": sizes(1, 3),
        "strides": sizes(1, 3),
        "padding": tuple(zip(sizes(0, 2), sizes(0, 2), strict=True)),
        "dilation": sizes(1, 2),
    }
    return x, layer


def reference(x, w, layer):
    rank = x.ndim - 2
    axes = ("N" + "XYZ"[:rank] + "C", "XYZ"[:rank] + "IO", "N" + "XYZ"[:rank] + "C")
    return jax.lax.conv_general_dilated(
        x, w, layer["strides"], layer["padding"], rhs_dilation=layer["dilation"], dimension_numbers=axes
    )


@settings(max_examples=15, deadline=None, derandomize=True)
@given(case=convolutions())
def test_outputs_and_gradients_are_those_of_the_convolution(case):
    shape, arguments = case
    net = nn.conv(**arguments, bias=False)
    x = jax.random.normal(jax.random.key(0), shape)
    w = jax.random.normal(jax.random.key(1), (*arguments["kernel_size"], shape[-1], arguments["features"]))
    expected_shape = jax.eval_shape(lambda x, w: reference(x, w, arguments), x, w).shape
    assume(min(expected_shape) > 0)

    def results(function):
        def loss(x, w):
            y = function(x, w)
            return (y**2).sum(), y

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(x, w)

    @jax.jit
    def both(x, w):
        ours = results(lambda x, w: net.apply({"w": w}, (), x, train=False)[0])
        return ours, results(lambda x, w: reference(x, w, arguments))

    for actual, expected in zip(*map(jax.tree.leaves, both(x, w)), strict=True):
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_each_platform_has_its_variant():
    x, w = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))

    def training(w):
        return jax.lax.scan(lambda w, _: (w - jax.grad(lambda w: convolved(w).sum())(w), None), w, length=2)[0]

    def convolved(w, groups=1):
        return nn.conv(w.shape[-1], 3, groups=groups, bias=False).apply({"w": w}, (), x, train=True)[0]

    def has_convolution(function, w, platform):
        return "stablehlo.convolution" in jax.jit(function).trace(w).lower(lowering_platforms=(platform,)).as_text()

    assert not has_convolution(training, w, "cpu")
    assert has_convolution(training, w, "cuda")
    assert has_convolution(lambda w: convolved(w, groups=3), jnp.ones((3, 3, 1, 3)), "cpu")


def test_a_network_of_convolutions_is_the_same_as_a_member_and_alone():
    net = nn.lenet(3)
    x = jax.random.normal(jax.random.key(0), (2, 28, 28, 1))
    params, state = jax.vmap(net.init, in_axes=(0, None))(jax.random.split(jax.random.key(1), 3), x)

    def loss(params, state):
        return net.apply(params, state, x, train=True)[0].sum()

    together = jax.jit(jax.vmap(jax.grad(loss)))(params, state)
    alone = jax.jit(jax.grad(loss))(*jax.tree.map(lambda leaf: leaf[1], (params, state)))
    for many, single in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(many[1], single, rtol=1e-3, atol=1e-4)
