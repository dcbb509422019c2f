"""Solve u'' = -π² sin πx with u(0) = u(1) = 0 by a physics-informed network (Raissi et al. 2017, arXiv:1711.10561)."""

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import nn, optim, train
from nnjax.types import Data, Key, Layer, Log, Params, State

body = nn.mlp([32, 32], 1, activation=jnp.tanh)


def init(key: Key, x: object, /) -> tuple[Params, State]:
    """Initialise the network for points with one coordinate, because the run has no data."""
    return body.init(key, jnp.ones((1, 1)))


def apply(params: Params, state: State, x: Array, /, *, train: bool, key: Key | None = None) -> tuple[Array, State]:
    """Return u(x) at points (n, 1); it is 0 on the boundary by construction."""
    y, state = body.apply(params, state, x, train=train, key=key)
    return x * (1 - x) * y, state


net = Layer("solution", init, apply)


def objective(params: Params, state: State, batch: Data, *, train: bool, key: Key) -> tuple[Array, State, Log]:
    """Return the squared residual of the equation at random points."""
    points = jax.random.uniform(key, (64,))
    u = lambda x: net.apply(params, state, x[None, None], train=train)[0][0, 0]  # noqa: E731
    residual = jax.vmap(jax.grad(jax.grad(u)))(points) + jnp.pi**2 * jnp.sin(jnp.pi * points)
    return jnp.square(residual), state, {"largest": jnp.abs(residual).max()}


def make_run() -> train.Run:
    """Return a run that needs no data: `train.fit(make_run(), steps=2000)`."""
    return train.Run(net, objective=objective, optimizer=optim.adam(3e-3), batch_size=None)
