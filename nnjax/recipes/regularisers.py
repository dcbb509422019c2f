"""Add squared L2 and spectral norms of weights to the loss (Yoshida and Miyato 2017, arXiv:1705.10941)."""

import jax.numpy as jnp
from jax import Array

from nnjax import losses, nn, optim, train
from nnjax.types import Data, Key, Log, Params, State

net = nn.mlp([64], 10)
plain = train.objective_of(net, losses.cross_entropy)


def penalties(params: Params) -> Log:
    """Return the sum of the squared weights, and the sum of the squared spectral norms of the weight matrices."""
    weights = [w for path, w in nn.paths(params).items() if path.endswith("/w")]
    return {
        "l2": jnp.stack([jnp.square(w).sum() for w in weights]).sum(),
        "spectral": jnp.stack([jnp.square(jnp.linalg.norm(w, 2)) for w in weights]).sum(),
    }


def make_run(factors: dict[str, float | Array]) -> train.Run:
    """Return a run that adds both penalties to the loss; the factors `{"l2": …, "spectral": …}` can be swept."""

    def objective(params: Params, state: State, batch: Data, *, train: bool, key: Key) -> tuple[Array, State, Log]:
        values, state, log = plain(params, state, batch, train=train, key=key)
        terms = penalties(params)
        return values + sum(factors[name] * term for name, term in terms.items()), state, log | terms

    return train.Run(net, objective=objective, optimizer=optim.adam(3e-3), batch_size=64)
