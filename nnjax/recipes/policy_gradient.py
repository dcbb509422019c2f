"""Balance a simulated pole on a cart (Barto et al. 1983) by policy gradients (Williams 1992), in pure JAX."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from nnjax import losses, nn, optim, train
from nnjax.types import Data, Key, Log, Params, State

STEPS, EPISODES = 200, 16
policy = nn.mlp([32], 2, activation=jnp.tanh)  # position, velocity, angle, angular velocity -> logits
net = policy._replace(init=lambda key, x: policy.init(key, jnp.ones((1, 4))))  # because the run has no data


def _move(s: Array, action: Array) -> Array:  # one time step of 0.02 s
    _, velocity, angle, turn = s.T
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    force = (jnp.where(action == 1, 10.0, -10.0) + 0.05 * turn**2 * sine) / 1.1
    faster = (9.8 * sine - cosine * force) / (2 / 3 - 0.05 * cosine**2 / 1.1)
    return s + 0.02 * jnp.stack([velocity, force - 0.05 / 1.1 * faster * cosine, turn, faster], 1)


def objective(params: Params, state: State, batch: Data, *, train: bool, key: Key) -> tuple[Array, State, Log]:
    """Return -Σ_t log π(action_t) advantage_t per episode. Each step earns 1 while pole and cart stay in range."""

    def step(s: Array, key: Key) -> tuple[Array, tuple[Array, Array]]:
        actions = jax.random.categorical(key, net.apply(params, state, s, train=train)[0])
        return _move(s, actions), (s, actions)

    s, actions = lax.scan(step, jnp.zeros((EPISODES, 4)), jax.random.split(key, STEPS))[1]
    alive = jnp.cumprod(((jnp.abs(s[..., 0]) < 2.4) & (jnp.abs(s[..., 2]) < 0.21)).astype(jnp.float32), axis=0)
    reward = jnp.cumsum(alive[::-1], axis=0)[::-1]  # sum from each step to the end of the episode
    advantage = alive * (reward - reward.mean(1, keepdims=True)) / (reward.std(1, keepdims=True) + 1)
    costs = losses.cross_entropy(net.apply(params, state, s.reshape(-1, 4), train=train)[0], actions.reshape(-1))
    return (costs.reshape(STEPS, EPISODES) * advantage).sum(0), state, {"reward": reward[0].mean()}


def make_run() -> train.Run:
    """Return a run that needs no data: `train.fit(make_run(), steps=200)`."""
    return train.Run(net, objective=objective, optimizer=optim.adam(1e-2), batch_size=None)
