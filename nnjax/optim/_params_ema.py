"""Track a moving average of the parameters."""

from typing import NamedTuple

import jax
import optax
from jax import Array

from nnjax import checks
from nnjax.optim._rule import Scalar, Scalars, check_inexact, map_leaves, require_params
from nnjax.types import Optimizer, OptState, Params, PyTree


class ParamsEmaState(NamedTuple):
    """Moving average of the parameters."""

    params_ema: Params


def params_ema(decay: Scalar = 0.999) -> Optimizer:
    """Return a transformation that tracks a moving average of the parameters; put it last in `optax.chain`.

        a ← d a + (1 - d) (θ + update),   initially a = θ

    It leaves the updates unchanged. The average is part of the optimizer's state, so it is saved, resumed and vmapped
    with that state. `averaged(opt_state)` returns the average.

    Args:
      decay: d in [0, 1), the decay rate of the average.

    Raises:
      ValueError: if the decay is out of range; in `update`, if params are missing or updates differ from them in
        structure or shape.
      TypeError: in `init` and `update`, if parameters or updates are neither floating-point nor complex.

    >>> optimizer = optax.chain(optim.adam(1e-3), optim.params_ema(0.99))
    >>> opt_state = optimizer.init({"w": jnp.ones(2)})
    >>> optim.averaged(opt_state)["w"]
    Array([1., 1.], dtype=float32)

    Source: Polyak and Juditsky 1992, doi:10.1137/0330046, with exponential weights.
    """
    decay = checks.in_range("params_ema", "decay", decay, "[0, 1)")

    def rule(scalars: Scalars, update: Array, a: Array, p: Array) -> tuple[Array]:
        (d,) = scalars
        return (d * a + (1 - d) * (p + update),)

    def update(updates: PyTree, state: ParamsEmaState, params: Params | None = None) -> tuple[PyTree, ParamsEmaState]:
        trees = {"average": state.params_ema, "params": require_params("params_ema", params)}
        return updates, ParamsEmaState(*map_leaves("params_ema", rule, [decay], updates, trees))

    def init(params: Params) -> ParamsEmaState:
        check_inexact("params_ema", "parameters", params)
        return ParamsEmaState(params)

    return optax.with_extra_args_support(Optimizer(init, update))


def averaged(opt_state: OptState, params: Params | None = None) -> Params:
    """Return the averaged parameters from the state of an optimizer with `params_ema` in its chain.

    Args:
      opt_state: the optimizer's state.
      params: ignored, but accepted so that `train.Run(…, evaluation_params=optim.averaged)` can call this function.

    Raises:
      ValueError: if the state does not contain exactly one average.

    >>> optim.averaged(optim.adam(1e-3).init(jnp.ones(2)))
    Traceback (most recent call last):
    ValueError: averaged: the optimizer keeps no average; use optax.chain(optimizer, optim.params_ema(0.999))
    """

    def is_average(node: PyTree) -> bool:
        return isinstance(node, ParamsEmaState)

    pairs = jax.tree_util.tree_leaves_with_path(opt_state, is_leaf=is_average)
    averages = {checks.path_name(path): node.params_ema for path, node in pairs if is_average(node)}
    if not averages:
        raise ValueError(
            "averaged: the optimizer keeps no average; use optax.chain(optimizer, optim.params_ema(0.999))"
        )
    if len(averages) > 1:
        raise ValueError(
            f"averaged: the optimizer keeps {len(averages)} averages, at the paths {' and '.join(averages)} of its "
            "state; pass the part of the state with one average, as in averaged(opt_state[1])"
        )
    return next(iter(averages.values()))
