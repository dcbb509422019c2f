"""Compute metrics of the gradient and the update, which are recorded for each step."""

import optax
from jax import Array

from nnjax.types import Params


def grad_norm(grads: Params, updates: Params, params: Params) -> Array:
    """Return the norm of the gradient over all parameters, for `Run(…, step_metrics=(train.grad_norm,))`.

        √Σ |g|²

    Args:
      grads: the gradient of the loss, before the optimizer.
      updates: unused.
      params: unused.

    >>> digits, net = data.load("digits"), nn.mlp([8], 10)
    >>> run = train.Run(net, losses.cross_entropy, optim.sgd(0.1), batch_size=32, step_metrics=(train.grad_norm,))
    >>> train.fit(run, digits.train, epochs=1).log["grad_norm"].shape
    (45,)
    """
    return optax.tree.norm(grads)


def update_norm(grads: Params, updates: Params, params: Params) -> Array:
    """Return the norm of the update of all parameters, for `Run(…, step_metrics=(train.update_norm,))`.

        √Σ |Δθ|²

    Args:
      grads: unused.
      updates: the optimizer's updates, which are added to the parameters.
      params: unused.

    >>> float(train.update_norm({"w": jnp.zeros(2)}, {"w": jnp.array([3.0, 4.0])}, {"w": jnp.zeros(2)}))
    5.0
    """
    return optax.tree.norm(updates)
