"""Recompute activations instead of storing them (rematerialisation)."""

import jax

from nnjax.nn.as_layer import checked_layer
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State


def remat(layer: LayerLike) -> Layer:
    """Recompute a layer's activations in the backward pass instead of storing them, which saves memory.

    Args:
      layer: Any layer. `repeat(n, remat(block))` stores one activation per block.

    Shapes, parameters and errors: as for the layer.

    >>> net = nn.repeat(100, nn.remat(nn.residual(nn.dense(8), jnp.tanh)))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 8)))

    Source: Chen et al. 2016, arXiv:1604.06174; `jax.checkpoint`.
    """
    inner = checked_layer("remat", layer)

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        def body(params: Params, state: State, x: PyTree, key: Key | None) -> tuple[PyTree, State]:
            return inner.apply(params, state, x, train=train, key=key)

        return jax.checkpoint(body)(params, state, x, key)

    return Layer(f"remat({inner.name})", inner.init, apply)
