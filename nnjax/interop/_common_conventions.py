"""Conventions that several libraries share: norms with other names, and arrays with channels first."""

import jax.numpy as jnp
from jax import Array

from nnjax.interop._convert import Convention, leaf_conversions, same
from nnjax.interop._parts import Leaves


def norm_conventions(scale: str, bias: str, mean: str, var: str) -> dict[str, Convention]:
    """Return the conventions of all norms by kind of layer; the names are those of the other library.

    The other library may omit the scale or the bias, if its values have no effect.
    """
    affine = {"scale": (scale, same, same), "bias": (bias, same, same)}
    statistics = {"mean": (mean, same, same), "var": (var, same, same)}
    no_effect = {scale: 1.0, bias: 0.0}
    by_example = leaf_conversions(affine, no_effect)
    return {
        **dict.fromkeys(("layer_norm", "group_norm", "instance_norm"), by_example),
        "rms_norm": leaf_conversions({"scale": affine["scale"]}, no_effect),
        "batch_norm": leaf_conversions(affine | statistics, no_effect),
    }


def outputs_first(w: Array) -> Array:
    """Transpose a kernel (*kernel, inputs, outputs) to (outputs, inputs, *kernel)."""
    return jnp.moveaxis(w, (-1, -2), (0, 1))


def outputs_last(w: Array) -> Array:
    """Transpose a kernel (outputs, inputs, *kernel) to (*kernel, inputs, outputs)."""
    return jnp.moveaxis(w, (0, 1), (-1, -2))


def with_channels_first(leaves: Convention, v: str) -> Convention:
    """Add the vector v of `spectral_norm`, named `v` in a library whose inputs come before the kernel's positions."""

    def to_library(native: Leaves) -> Leaves:
        reordered = jnp.moveaxis(native["v"].reshape(native["w"].shape[:-1]), -1, 0).ravel()
        return leaves.to_library(native) | {v: reordered}

    def from_library(foreign: Leaves) -> Leaves:
        native = leaves.from_library(foreign)
        *kernel, inputs, _ = native["w"].shape
        return native | {"v": jnp.moveaxis(foreign[v].reshape(inputs, *kernel), 0, -1).ravel()}

    return Convention(to_library, from_library)
