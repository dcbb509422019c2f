"""Train two heads on a shared body. Output and target are dictionaries, and each head has its own loss."""

import jax
from jax import Array

from nnjax import losses, nn, optim, train
from nnjax.types import Data, Key, Log, Params, State

LOSSES = {"digit": losses.cross_entropy, "ink": losses.squared_error}
net = nn.named(
    body=nn.serial(nn.dense(64), jax.nn.relu),
    heads=nn.branch(nn.dense(10), nn.dense(1), merge=lambda ys: dict(zip(LOSSES, ys, strict=True))),
)


def objective(params: Params, state: State, batch: Data, *, train: bool, key: Key) -> tuple[Array, State, Log]:
    """Return the sum of the losses of both heads, and log each loss."""
    outputs, state = net.apply(params, state, batch.x, train=train, key=key)
    terms = {name: loss(outputs[name], batch.y[name]) for name, loss in LOSSES.items()}
    return terms["digit"] + terms["ink"], state, {name: term.mean() for name, term in terms.items()}


def make_run() -> train.Run:
    """Return a run for targets `{"digit": labels (n,), "ink": numbers (n, 1)}`."""
    return train.Run(net, objective=objective, optimizer=optim.adam(3e-3), batch_size=64)
