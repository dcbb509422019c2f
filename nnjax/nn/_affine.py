"""The product behind the dense layer, in the form that suits the device."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from nnjax.nn.shape import per_feature

FEW = 32  # outputs, up to which the gradient is better computed turned over


def affine(x: Array, w: Array, b: Array | None) -> Array:
    """y = x w + b, for x (batch, ..., inputs), w (inputs, outputs), b (outputs,) or None."""
    y = product(x, w) if w.shape[1] <= FEW else jnp.dot(x, w)
    return y if b is None else y + per_feature(b, y)


def affine_features_first(x: Array, w: Array, b: Array | None) -> Array:
    """(wᵀ xᵀ + b)ᵀ. Barriers keep XLA from turning the product over again; what follows it leaves in that order too."""
    y = w.T @ lax.optimization_barrier(x.reshape(-1, x.shape[-1]).T)
    y = lax.optimization_barrier(y if b is None else y + b[:, None])
    return y.T.reshape(*x.shape[:-1], w.shape[-1])


@jax.custom_jvp
def product(x: Array, w: Array) -> Array:
    """x w, with the gradient of w as (∇yᵀ x)ᵀ on CPUs.

    xᵀ ∇y, which JAX computes by itself, takes 3 to 8 times as long there for 10 outputs, and steps of 64-32-10 with
    batches of 32 a tenth longer.
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
