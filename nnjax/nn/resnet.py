"""Build residual networks for images."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import jax

from nnjax import checks
from nnjax.nn.branch import residual
from nnjax.nn.conv import conv
from nnjax.nn.dense import dense
from nnjax.nn.group_norm import group_norm
from nnjax.nn.initializers import initializer_for
from nnjax.nn.norm import batch_norm
from nnjax.nn.pool import global_avg_pool, max_pool
from nnjax.nn.serial import serial
from nnjax.types import Layer, LayerLike


def resnet(
    outputs: int,
    *,
    blocks: Sequence[int] = (2, 2, 2, 2),
    width: int = 64,
    stem: Literal["small", "large"] = "small",
    norm: Literal["batch", "group"] = "batch",
) -> Layer:
    """Build a residual network with two convolutions per block; the default is ResNet-18.

        h ← relu(shortcut(h) + norm(conv(relu(norm(conv(h))))))   for each block

    Args:
      outputs: Number of outputs. The last layer has no activation.
      blocks: Number of blocks in each stage. Each stage after the first halves the image size and doubles the channels.
        (3, 4, 6, 3) gives ResNet-34.
      width: Number of channels in the first stage.
      stem: First layers: "small" is a 3 × 3 convolution, for images of about 32 × 32 pixels; "large" is a 7 × 7
        convolution and max-pooling, both with stride 2, for images of about 224 × 224 pixels.
      norm: Normalisation: "batch", or "group" with 8 groups, which does not depend on the rest of the batch.

    Shapes: x (batch, height, width, channels) -> y (batch, outputs).

    Raises:
      ValueError: if a size is < 1, or if stem or norm is unknown; in `init`, if norm="group" and 8 does not divide the
        channels.
      TypeError: if a size is not an integer, or x is not floating-point.

    >>> net = nn.resnet(10, width=8)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 16, 16, 3)))
    >>> net.apply(params, state, jnp.ones((2, 16, 16, 3)), train=False)[0].shape
    (2, 10)

    Source: He et al. 2016, arXiv:1512.03385, which uses the small stem for CIFAR-10.
    """
    checks.one_of("resnet", "norm", norm, ("batch", "group"))
    checks.one_of("resnet", "stem", stem, ("small", "large"))
    width = checks.positive_int("resnet", "width", width)
    blocks = checks.items("resnet", "blocks", blocks, "(2, 2, 2, 2)")
    normalise = batch_norm if norm == "batch" else partial(group_norm, 8)
    first = _conv(width, 7, 2) if stem == "large" else _conv(width, 3, 1)
    pool: list[LayerLike] = [max_pool(3, strides=2, padding=((1, 1), (1, 1)))] if stem == "large" else []
    layers: list[LayerLike] = [first, normalise(), jax.nn.relu, *pool]
    channels = width
    for stage, count in enumerate(blocks):
        for i in range(checks.positive_int("resnet", "blocks", count)):
            features, strides = width * 2**stage, 2 if stage > 0 and i == 0 else 1
            layers.append(_block(channels, features, strides, normalise))
            channels = features
    return serial(*layers, global_avg_pool(), dense(outputs, w_init=initializer_for(None)))._replace(name="resnet")


def _conv(features: int, size: int, strides: int) -> Layer:
    pad = size // 2
    return conv(features, (size, size), strides=strides, padding=((pad, pad), (pad, pad)), bias=False)


def _block(channels: int, features: int, strides: int, normalise: Callable[[], Layer]) -> Layer:
    shortcut = None if channels == features and strides == 1 else serial(_conv(features, 1, strides), normalise())
    two = (_conv(features, 3, strides), normalise(), jax.nn.relu, _conv(features, 3, 1), normalise())
    return serial(residual(*two, shortcut=shortcut), jax.nn.relu)._replace(name="block")
