"""A moving average of the parameters."""

from typing import NamedTuple

import jax
import optax

from nnjax import checks
from nnjax.optim._rule import Scalar, Scalars, need_params, over_leaves
from nnjax.types import Optimizer, OptState, Params, PyTree


class ParamsEmaState(NamedTuple):
    """State of `params_ema`."""

    params_ema: Params


def params_ema(decay: Scalar = 0.999) -> Optimizer:
    """The moving average of the parameters, kept beside an optimizer: the last part of its chain.

        a ← d a + (1 - d) (θ + update),   a = θ at first

    It leaves the updates as they are. The average is part of the optimizer's state, so it is saved, resumed, vmapped
    and swept like the rest of it; `averaged(opt_state)` takes it out.

    Args:
      decay: d in [0, 1), the share of the average that is kept.

    Raises:
      ValueError: for a decay out of range; in `update`, without params, or for updates of another structure or shape.

    >>> optimizer = optax.chain(optim.adam(1e-3), optim.params_ema(0.99))
    >>> opt_state = optimizer.init({"w": jnp.ones(2)})
    >>> optim.averaged(opt_state)["w"]
    Array([1., 1.], dtype=float32)

    Source: Polyak and Juditsky 1992, with exponential weights.
    """
    decay = checks.in_range("params_ema", "decay", decay, "[0, 1)")

    def rule(scalars: Scalars, update: jax.Array, a: jax.Array, p: jax.Array) -> tuple[jax.Array]:
        (d,) = scalars
        return (d * a + (1 - d) * (p + update),)

    def init(params: Params) -> ParamsEmaState:
        return ParamsEmaState(params)

    def update(updates: PyTree, state: ParamsEmaState, params: Params | None = None) -> tuple[PyTree, ParamsEmaState]:
        params = need_params("params_ema", params)
        (average,) = over_leaves("params_ema", rule, [decay], updates, {"average": state.params_ema, "params": params})
        return updates, ParamsEmaState(average)

    return Optimizer(init, update)


def averaged(opt_state: OptState) -> Params:
    """The averaged parameters inside the state of an optimizer with a `params_ema` in its chain.

    Raises:
      ValueError: where there is none.

    >>> optim.averaged(optim.adam(1e-3).init(jnp.ones(2)))
    Traceback (most recent call last):
    ValueError: averaged: the optimizer keeps no average; optax.chain(optimizer, optim.params_ema(0.999)) does
    """
    average = optax.tree.get(opt_state, "params_ema")
    if average is None:
        raise ValueError(
            "averaged: the optimizer keeps no average; optax.chain(optimizer, optim.params_ema(0.999)) does"
        )
    return average
