"""The two forms of a convolution, of which a device runs only one, are the same function."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nnjax import nn
from nnjax.nn._convolve import as_convolution, as_product, convolve, output_sizes


@st.composite
def convolutions(draw):
    rank = draw(st.integers(1, 3))

    def sizes(low, high):
        return draw(st.tuples(*[st.integers(low, high)] * rank))

    x = (2, *sizes(1, 6), draw(st.integers(1, 3)))
    w = (*sizes(1, 3), x[-1], draw(st.integers(1, 3)))
    pads = tuple(zip(sizes(0, 2), sizes(0, 2), strict=True))
    strides, dilation = sizes(1, 3), sizes(1, 2)
    assume(min(output_sizes(x[1:-1], w[:-2], strides, pads, dilation)) >= 1)
    return x, w, {"strides": strides, "pads": pads, "dilation": dilation}


@settings(max_examples=25, deadline=None)
@given(case=convolutions())
def test_the_product_is_the_convolution_and_so_are_its_gradients(case):
    x_shape, w_shape, how = case
    x, w = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate((x_shape, w_shape)))

    def results(function, **more):
        def loss(x, w):
            y = function(x, w, **how, **more)
            return (y**2).sum(), y

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(x, w)

    for found, expected in zip(
        jax.tree.leaves(results(as_product)), jax.tree.leaves(results(as_convolution, groups=1)), strict=True
    ):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_each_platform_has_its_form():
    x, w = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))

    def program(x, w):
        return jax.lax.scan(lambda w, _: (w - jax.grad(lambda w: convolved(x, w).sum())(w), None), w, length=2)[0]

    def convolved(x, w, groups=1):
        return convolve(x, w, strides=(1, 1), pads=((1, 1), (1, 1)), dilation=(1, 1), groups=groups)

    def has_convolution(function, w, platform):
        return "stablehlo.convolution" in jax.jit(function).trace(x, w).lower(lowering_platforms=(platform,)).as_text()

    assert not has_convolution(program, w, "cpu")
    assert has_convolution(program, w, "cuda")
    assert has_convolution(lambda x, w: convolved(x, w, groups=3), jnp.ones((3, 3, 1, 3)), "cpu")


def test_output_sizes_of_windows_that_do_not_fit():
    assert output_sizes((4, 5), (6, 5), (1, 1), ((0, 0), (0, 0)), (1, 1)) == [-1, 1]
    assert output_sizes((4,), (2,), (1,), ((0, 0),), (4,)) == [0]


def test_a_network_of_convolutions_is_the_same_as_a_member_and_alone():
    net = nn.lenet(3)
    x = jax.random.normal(jax.random.key(0), (2, 28, 28, 1))
    params, state = jax.vmap(net.init, in_axes=(0, None))(jax.random.split(jax.random.key(1), 3), x)

    def loss(params, state):
        return net.apply(params, state, x, train=True)[0].sum()

    together = jax.jit(jax.vmap(jax.grad(loss)))(params, state)
    alone = jax.grad(loss)(jax.tree.map(lambda leaf: leaf[1], params), jax.tree.map(lambda leaf: leaf[1], state))
    for many, one in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(many[1], one, rtol=1e-3, atol=1e-4)
