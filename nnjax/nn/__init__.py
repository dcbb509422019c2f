"""Layers, the combinators that join them, and models built from them.

A layer is two pure functions, `init(key, x) -> (params, state)` and
`apply(params, state, x, *, train, key=None) -> (y, state)`. A plain function of an array also serves as a layer.
A custom layer is just these two functions in a `Layer`: no base class, no registration.
"""

import jax

from nnjax import checks
from nnjax.nn import initializers
from nnjax.nn.activations import heaviside, softmax
from nnjax.nn.as_layer import as_layer, identity
from nnjax.nn.branch import branch, concat, residual
from nnjax.nn.conv import conv
from nnjax.nn.dense import dense
from nnjax.nn.dropout import dropout
from nnjax.nn.embedding import embedding
from nnjax.nn.initializers import initializer_for
from nnjax.nn.models import lenet, mlp, perceptron, residual_mlp
from nnjax.nn.norm import batch_norm, layer_norm
from nnjax.nn.pool import avg_pool, global_avg_pool, max_pool
from nnjax.nn.precision import with_precision
from nnjax.nn.remat import remat
from nnjax.nn.repeat import repeat
from nnjax.nn.scale import scale
from nnjax.nn.serial import serial
from nnjax.nn.shape import flatten, reshape
from nnjax.nn.summary import summary
from nnjax.nn.widths import mask
from nnjax.types import Layer

__all__ = [
    "Layer",
    "as_layer",
    "avg_pool",
    "batch_norm",
    "branch",
    "concat",
    "conv",
    "dense",
    "dropout",
    "embedding",
    "flatten",
    "global_avg_pool",
    "heaviside",
    "identity",
    "initializer_for",
    "initializers",
    "layer_norm",
    "lenet",
    "mask",
    "max_pool",
    "mlp",
    "perceptron",
    "remat",
    "repeat",
    "reshape",
    "residual",
    "residual_mlp",
    "scale",
    "serial",
    "softmax",
    "summary",
    "with_precision",
]

_ELSEWHERE = {name.replace("_", ""): f"jax.nn.{name}" for name in dir(jax.nn)} | {
    # names of other libraries, in lower case without underscores
    "linear": "nn.dense",
    "sequential": "nn.serial",
    "chain": "nn.serial",
    "tanh": "jnp.tanh",
    "conv1d": "nn.conv",
    "conv2d": "nn.conv",
    "conv3d": "nn.conv",
    "batchnorm1d": "nn.batch_norm",
    "batchnorm2d": "nn.batch_norm",
    "maxpool2d": "nn.max_pool",
    "avgpool2d": "nn.avg_pool",
    "embed": "nn.embedding",
    "module": "nn.Layer",
}
# Assigned, because a type checker would assume that a module that defines this function has every name
globals()["__getattr__"] = checks.missing_name("nn", __all__, _ELSEWHERE)
