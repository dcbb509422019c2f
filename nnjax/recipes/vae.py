"""Train a variational autoencoder for images by maximising the ELBO (Kingma and Welling 2014, arXiv:1312.6114)."""

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import losses, nn, optim, train
from nnjax.types import Data, Key, Log, Params, State

CODE = 8  # dimension of the latent code
encoder, decoder = nn.mlp([128], 2 * CODE), nn.mlp([128], 64)
net = nn.named(encoder=encoder, mean=lambda h: h[:, :CODE], decoder=decoder)  # decodes the mean of the latent code


def objective(params: Params, state: State, batch: Data, *, train: bool, key: Key) -> tuple[Array, State, Log]:
    """Return the negative evidence lower bound (ELBO): reconstruction loss plus KL divergence from the prior."""
    h, _ = encoder.apply(params["encoder"], state["encoder"], batch.x, train=train)
    mean, log_variance = jnp.split(h, 2, axis=-1)
    code = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
    pixels, _ = decoder.apply(params["decoder"], state["decoder"], code, train=train)
    reconstruction = losses.binary_cross_entropy(pixels, batch.x)
    divergence = (jnp.square(mean) + jnp.exp(log_variance) - log_variance - 1).sum(-1) / 2
    log = {"reconstruction": reconstruction.mean(), "divergence": divergence.mean()}
    return reconstruction + divergence, state, log


def make_run() -> train.Run:
    """Return a run that trains on images (n, 64) with values in [0, 1]."""
    return train.Run(net, objective=objective, optimizer=optim.adam(3e-3), batch_size=64)
