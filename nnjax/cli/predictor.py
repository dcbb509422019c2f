"""Turn a trained network or ensemble into a function of the features."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnjax import uncertainty
from nnjax.cli.prepare import Prepared
from nnjax.types import PyTree

Predictor = Callable[[np.ndarray], np.ndarray]


def make_predictor(
    prepared: Prepared, params: PyTree, state: PyTree, *, members: int | None, left_out: Sequence[int] = ()
) -> Predictor:
    """Return a function from standardised features (n, features) to predictions (n, outputs).

    The predictions are logits for classification, and averaged for an ensemble. The function is compiled for each n.

    Args:
      prepared: the data and the run.
      params: trained weights, with a leading axis (members, ...) for an ensemble.
      state: the state of the network, with a leading axis (members, ...) for an ensemble.
      members: number of members; None means a single network.
      left_out: members that are not averaged.
    """
    run, classify = prepared.run, prepared.dataset.table.task == "classification"
    if members is None:
        params, state = jax.tree.map(lambda a: np.asarray(a)[None], (params, state))
    else:
        used = np.delete(np.arange(members), left_out)
        params, state = jax.tree.map(lambda a: np.asarray(a)[used], (params, state))

    @jax.jit
    def average(params: PyTree, state: PyTree, x: Any) -> Any:
        outputs = lax.map(lambda network: run.predict(network[0], network[1], x), (params, state))
        if len(outputs) == 1:
            return outputs[0]
        return uncertainty.log_mean_probabilities(outputs) if classify else outputs.mean(0)

    return lambda x: np.asarray(average(params, state, jnp.asarray(x, jnp.float32)))
