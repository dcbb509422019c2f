"""Train a small network on the logits of a large one, by distillation (Hinton et al. 2015, arXiv:1503.02531)."""

import jax
from jax import Array

from nnjax import losses, nn, optim, train
from nnjax.types import Data, Key, Log, Params, State

net = nn.mlp([16], 10)


def make_run(temperature: float | Array = 4.0, share: float | Array = 0.9) -> train.Run:
    """Return a run for targets `{"label": (n,), "teacher": logits (n, 10)}`; `share` is the weight of the teacher."""

    def objective(params: Params, state: State, batch: Data, *, train: bool, key: Key) -> tuple[Array, State, Log]:
        logits, state = net.apply(params, state, batch.x, train=train, key=key)
        soft = jax.nn.softmax(batch.y["teacher"] / temperature)
        divergence = temperature**2 * losses.kl_divergence(logits / temperature, soft)
        hard = losses.cross_entropy(logits, batch.y["label"])
        log = {"divergence": divergence.mean(), "cross_entropy": hard.mean()}
        return share * divergence + (1 - share) * hard, state, log

    return train.Run(net, objective=objective, optimizer=optim.adam(3e-3), batch_size=64)
