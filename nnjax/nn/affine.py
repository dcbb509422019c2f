"""The product behind the dense layer, in the form that suits the device.

XLA's products for CPUs are slow for some shapes of operands. Two forms go around them; accelerators keep the plain one.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from nnjax.nn.shape import per_feature

NARROW = 64  # features, up to which the rows are better computed as columns, if they are many
MANY = 4  # rows for each feature, from which turning them over costs less than it saves
FEW = 32  # outputs, up to which the gradient is better computed turned over


def affine(x: Array, w: Array, b: Array | None) -> Array:
    """y = x w + b.

    On a CPU, many rows of few features are computed as columns. XLA leaves what follows, activations and gradients, in
    that order too. A step on 10 000 rows takes 1.7 times as long without, for 4-32-16-4 with tanh; on 1024 rows 1.3
    times, for 64-32-32-10.

    Args:
      x: (batch, ..., inputs)
      w: (inputs, features)
      b: (features,)
    """
    rows, width = x.size // max(x.shape[-1], 1), max(w.shape)
    if width <= NARROW and rows >= MANY * width:
        y: Array = lax.platform_dependent(x, w, b, cpu=as_columns, default=as_rows)
        return y
    return as_rows(x, w, b)


def as_rows(x: Array, w: Array, b: Array | None) -> Array:
    """As it is written."""
    y = product(x, w) if w.shape[1] <= FEW else jnp.dot(x, w)
    return y if b is None else y + per_feature(b, y)


def as_columns(x: Array, w: Array, b: Array | None) -> Array:
    """(wᵀ xᵀ + b)ᵀ. Barriers keep XLA from turning the product over again."""
    y = w.T @ lax.optimization_barrier(x.reshape(-1, x.shape[-1]).T)
    y = lax.optimization_barrier(y if b is None else y + b[:, None])
    return y.T.reshape(*x.shape[:-1], w.shape[-1])


@jax.custom_jvp
def product(x: Array, w: Array) -> Array:
    """x w, with the gradient of w as (∇yᵀ x)ᵀ on CPUs.

    xᵀ ∇y, which JAX computes by itself, takes 3 to 8 times as long there for 10 outputs, and steps of 64-32-10 with
    batches of 32 a sixth longer.
    """
    return jnp.dot(x, w)


def _product_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, w), (dx, dw) = primals, tangents
    parts = [] if isinstance(dx, SymbolicZero) else [jnp.dot(dx, w)]
    parts += [] if isinstance(dw, SymbolicZero) else [lax.platform_dependent(x, dw, cpu=_turned_over, default=jnp.dot)]
    return product(x, w), sum(parts[1:], parts[0])


def _turned_over(x: Array, dw: Array) -> Array:
    """x dw, in the form that is transposed to the gradient's."""
    columns = lax.optimization_barrier(dw.T) @ x.reshape(-1, x.shape[-1]).T
    return lax.optimization_barrier(columns).T.reshape(*x.shape[:-1], dw.shape[-1])


product.defjvp(_product_jvp, symbolic_zeros=True)
