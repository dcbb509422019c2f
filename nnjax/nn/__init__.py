"""Build networks from layers and from combinators that join them.

A layer is two pure functions, `init(key, x) -> (params, state)` and
`apply(params, state, x, *, train, key=None) -> (y, state)`. A plain function of an array is also accepted as a layer.
A custom layer is just these two functions in a `Layer`: no base class, no registration.
"""

import jax

from nnjax._missing_name import missing_name
from nnjax.nn import initializers
from nnjax.nn.activations import heaviside, softmax
from nnjax.nn.as_layer import as_layer, identity
from nnjax.nn.attention import AttentionInput, multi_head_attention
from nnjax.nn.autoencoder import autoencoder
from nnjax.nn.branch import branch, concat, residual
from nnjax.nn.conv import conv
from nnjax.nn.conv_transpose import conv_transpose
from nnjax.nn.dense import dense
from nnjax.nn.dropout import drop_path, dropout, spatial_dropout
from nnjax.nn.embedding import embedding
from nnjax.nn.frozen import frozen
from nnjax.nn.gated import gated_dense, maxout
from nnjax.nn.group_norm import group_norm, instance_norm
from nnjax.nn.initializers import initializer_for
from nnjax.nn.models import lenet, mlp, perceptron, residual_mlp
from nnjax.nn.named import named
from nnjax.nn.norm import batch_norm, layer_norm, rms_norm
from nnjax.nn.paths import labels, mask, paths
from nnjax.nn.pool import avg_pool, global_avg_pool, max_pool
from nnjax.nn.positions import learned_positions, rotary, sinusoidal_positions
from nnjax.nn.precision import with_precision
from nnjax.nn.recurrent import Sequences, bidirectional, gru, lstm, rnn
from nnjax.nn.remat import remat
from nnjax.nn.repeat import repeat
from nnjax.nn.resnet import resnet
from nnjax.nn.scale import scale
from nnjax.nn.serial import serial
from nnjax.nn.shape import flatten, reshape
from nnjax.nn.summary import summary
from nnjax.nn.transformer import language_model, transformer
from nnjax.nn.upsample import upsample
from nnjax.nn.weight_norm import spectral_norm, weight_norm
from nnjax.nn.widths import first_features
from nnjax.types import Layer

__all__ = [
    "AttentionInput",
    "Layer",
    "Sequences",
    "as_layer",
    "autoencoder",
    "avg_pool",
    "batch_norm",
    "bidirectional",
    "branch",
    "concat",
    "conv",
    "conv_transpose",
    "dense",
    "drop_path",
    "dropout",
    "embedding",
    "first_features",
    "flatten",
    "frozen",
    "gated_dense",
    "global_avg_pool",
    "group_norm",
    "gru",
    "heaviside",
    "identity",
    "initializer_for",
    "initializers",
    "instance_norm",
    "labels",
    "language_model",
    "layer_norm",
    "learned_positions",
    "lenet",
    "lstm",
    "mask",
    "max_pool",
    "maxout",
    "mlp",
    "multi_head_attention",
    "named",
    "paths",
    "perceptron",
    "remat",
    "repeat",
    "reshape",
    "residual",
    "residual_mlp",
    "resnet",
    "rms_norm",
    "rnn",
    "rotary",
    "scale",
    "serial",
    "sinusoidal_positions",
    "softmax",
    "spatial_dropout",
    "spectral_norm",
    "summary",
    "transformer",
    "upsample",
    "weight_norm",
    "with_precision",
]

_ELSEWHERE = {name.replace("_", ""): f"jax.nn.{name}" for name in dir(jax.nn)} | {
    # names used by other libraries, in lower case without underscores
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
    "convtranspose2d": "nn.conv_transpose",
    "multiheadattention": "nn.multi_head_attention",
    "embed": "nn.embedding",
    "module": "nn.Layer",
}
# Assigned through globals(): if the module defined __getattr__ openly, type checkers would accept any name
globals()["__getattr__"] = missing_name("nn", __all__, _ELSEWHERE)
