"""Compare networks whose weights were converted from another library and back with that library's."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import nn


class Case(NamedTuple):
    """A layer in both libraries."""

    net: Any
    x: np.ndarray
    weights: Callable[[], Any]  # their weights
    forward: Callable[[Any, Any], Any]  # (their weights, x) -> y
    names: Any = None
    redraw: bool = True  # whether any values of our leaves can be stored there
    export: bool = True  # whether exported weights predict the same


def array(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def redrawn(leaf, seed):
    """Return other values for an array of floating numbers; they are positive, because some are variances."""
    values = np.random.default_rng(seed).uniform(0.2, 0.9, np.shape(leaf))
    return values.astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def compare(library, case, dtype, cast):
    """Import their weights, compare outputs; export ours, compare outputs again.

    Args:
      library: the module of nnjax.interop.
      case: the layer.
      dtype: of all numbers.
      cast: function of their weights and a dtype, returns the weights in it.
    """
    tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(case.x) if case.x.dtype.kind == "i" else jnp.asarray(case.x, dtype)
        weights = cast(case.weights(), dtype)
        params, state = library.import_weights(case.net, x, weights, names=case.names)
        expected = jax.eval_shape(case.net.init, jax.random.key(0), x)
        assert jax.tree.structure((params, state)) == jax.tree.structure(expected)
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a.dtype == b.dtype, (params, state), expected)))
        apply = jax.jit(functools.partial(case.net.apply, train=False))
        difference = [_difference(apply(params, state, x)[0], case.forward(weights, x))]
        if case.export:
            draw = (lambda leaf: jnp.asarray(redrawn(leaf, 7))) if case.redraw else (lambda leaf: leaf)
            drawn = jax.tree.map(draw, (params, state))
            back = library.export_weights(case.net, x, *drawn, like=weights, names=case.names)
            difference += [_difference(apply(*drawn, x)[0], case.forward(back, x))]
            again = library.import_weights(case.net, x, back, names=case.names)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance), again, drawn)
    assert max(difference) < tolerance
    return max(difference)


def _difference(ours, theirs):
    ours = ours.x if isinstance(ours, (nn.Sequences, nn.AttentionInput)) else ours
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 0.01  # something is compared
    return float(np.abs(ours - theirs).max() / max(1, np.abs(theirs).max()))
