"""Train a generative adversarial network with two optimizers in one step (Goodfellow et al. 2014, arXiv:1406.2661)."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from nnjax import losses, nn, optim, train
from nnjax.types import Data, Key, Log, Params, State

generator, discriminator = nn.mlp([64, 64], 2), nn.mlp([64, 64], 1)
net = nn.named(generator=generator, discriminator=discriminator)  # noise (n, 2) -> points (n, 2) -> scores (n, 1)


def generate(params: Params, state: State, key: Key, n: int) -> Array:
    """Return `n` generated points (n, 2)."""
    noise = jax.random.normal(key, (n, 2))
    return generator.apply(params["generator"], state["generator"], noise, train=False)[0]


def objective(params: Params, state: State, batch: Data, *, train: bool, key: Key) -> tuple[Array, State, Log]:
    """Return the sum of the losses of both networks. Each loss trains only its own network."""

    def loss(params: Params, points: Array, real: int) -> Array:
        score, _ = discriminator.apply(params["discriminator"], state["discriminator"], points, train=train)
        return losses.binary_cross_entropy(score, jnp.full(score.shape, real))

    fake = generate(params, state, key, len(batch.x))
    loss_d = (loss(params, batch.x, 1) + loss(params, jax.lax.stop_gradient(fake), 0)) / 2
    loss_g = loss(jax.lax.stop_gradient(params), fake, 1)
    return loss_d + loss_g, state, {"discriminator": loss_d.mean(), "generator": loss_g.mean()}


def make_run() -> train.Run:
    """Return a run that trains on points (n, 2)."""
    players = {"generator": optim.adam(1e-3, b1=0.5), "discriminator": optim.adam(2e-3, b1=0.5)}
    optimizer = optax.partition(players, lambda params: nn.labels(params, {f"{name}/**": name for name in players}))
    return train.Run(net, objective=objective, optimizer=optimizer, batch_size=256)
