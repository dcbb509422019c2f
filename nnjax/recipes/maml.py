"""Learn initial parameters from which one gradient step fits a sine (MAML; Finn et al. 2017, arXiv:1703.03400)."""

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import losses, nn, optim, train
from nnjax.types import Data, Key, Log, Params, State

TASKS, POINTS, RATE = 16, 10, 0.05
body = nn.mlp([40, 40], 1, activation=jnp.tanh)
net = body._replace(init=lambda key, x: body.init(key, jnp.ones((1, 1))))  # because the run has no data


def task_losses(params: Params, state: State, key: Key) -> tuple[Array, Array]:
    """Draw a random sine and return the loss before and after one gradient step on ten of its points."""
    sine, support, query = jax.random.split(key, 3)
    amplitude, phase = jax.random.uniform(sine, (2,), minval=jnp.array([0.1, 0.0]), maxval=jnp.array([5.0, jnp.pi]))

    def loss(params: Params, key: Key) -> Array:
        x = jax.random.uniform(key, (POINTS, 1), minval=-5.0, maxval=5.0)
        y, _ = net.apply(params, state, x, train=True)
        return losses.squared_error(y, amplitude * jnp.sin(x - phase)).mean()

    after = jax.tree.map(lambda p, g: p - RATE * g, params, jax.grad(loss)(params, support))
    return loss(params, query), loss(after, query)


def objective(params: Params, state: State, batch: Data, *, train: bool, key: Key) -> tuple[Array, State, Log]:
    """Return the loss of each task after its gradient step; training differentiates through this step."""
    before, after = jax.vmap(task_losses, (None, None, 0))(params, state, jax.random.split(key, TASKS))
    return after, state, {"before": before.mean()}


def make_run() -> train.Run:
    """Return a run that needs no data: `train.fit(make_run(), steps=2000)`."""
    return train.Run(net, objective=objective, optimizer=optim.adam(1e-3), batch_size=None)
