"""Learn from partly wrong labels: a label that the network finds likely gets more weight (arXiv:1805.07836)."""

import jax.numpy as jnp
from jax import Array, lax

from nnjax import losses, metrics, nn, optim, train
from nnjax.types import Data, Key, Log, Params, State

net = nn.mlp([64], 10)
plain = train.objective_of(net, losses.cross_entropy)


def make_run(exponent: float | Array = 0.7) -> train.Run:
    """Return a run that weights each example by (probability of its label)^exponent; 0 gives equal weights."""

    def objective(params: Params, state: State, batch: Data, *, train: bool, key: Key) -> tuple[Array, State, Log]:
        values, state, log = plain(params, state, batch, train=train, key=key)
        weights = lax.stop_gradient(jnp.exp(-exponent * values))
        return weights * values, state, log | {"weight": weights.mean()}

    return train.Run(net, objective=objective, optimizer=optim.adam(3e-3), batch_size=64, metrics=(metrics.accuracy,))
