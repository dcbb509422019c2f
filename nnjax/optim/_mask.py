"""Weight decay for a part of the parameters."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from nnjax.types import Params, PyTree

Mask = PyTree | Callable[[Params], PyTree] | None


def masked(mask: Mask, params: Params) -> Params:
    """The parameters that decay, and zeros in place of the others.

    Args:
      mask: booleans in the structure of the parameters or of a prefix of it, a function that makes them of the
        parameters, or None for all.
      params: parameters.
    """
    if mask is None:
        return params
    chosen = mask(params) if callable(mask) else mask
    return jax.tree.map(lambda yes, part: part if yes else jax.tree.map(jnp.zeros_like, part), chosen, params)
