"""Match the two views of each image in a batch, by contrastive learning (Chen et al. 2020, arXiv:2002.05709)."""

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import losses, nn, optim, train
from nnjax.types import Data, Key, Log, Params, State

net = nn.mlp([128], 32)


def view(key: Key, images: Array) -> Array:
    """Shift 8 × 8 images (n, 64) by up to one pixel, and multiply each pixel by random noise."""
    shift, noise = jax.random.split(key)
    offsets = jax.random.randint(shift, (len(images), 2), -1, 2)
    pixels = jax.vmap(lambda image, by: jnp.roll(image, (by[0], by[1]), (0, 1)))(images.reshape(-1, 8, 8), offsets)
    return pixels.reshape(images.shape) * jax.random.uniform(noise, images.shape, minval=0.5, maxval=1.5)


def objective(params: Params, state: State, batch: Data, *, train: bool, key: Key) -> tuple[Array, State, Log]:
    """Return the InfoNCE loss, averaged over both directions."""
    views = jnp.concatenate([view(k, batch.x) for k in jax.random.split(key)])
    codes, state = net.apply(params, state, views, train=train)
    a, b = jnp.split(codes, 2)
    nearest = (a @ (b / jnp.linalg.norm(b, axis=1, keepdims=True)).T).argmax(1)
    log = {"accuracy": (nearest == jnp.arange(len(a))).mean()}
    return (losses.info_nce(a, b) + losses.info_nce(b, a)) / 2, state, log


def make_run() -> train.Run:
    """Return a run that trains on images (n, 64)."""
    return train.Run(net, objective=objective, optimizer=optim.adam(3e-3), batch_size=128)
