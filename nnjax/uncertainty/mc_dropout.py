"""One network as an ensemble of its thinned ones."""

from collections.abc import Callable

import jax
from jax import Array

from nnjax import checks
from nnjax.nn import as_layer
from nnjax.types import Key, LayerLike, Params, PyTree, State


def mc_dropout(net: LayerLike, params: Params, state: State, x: PyTree, key: Key, n: int) -> PyTree:
    """Monte Carlo dropout: `n` predictions of one network with its dropout on, as if of `n` members.

        y_i = net(x; mask_i),   i = 1 … n;   BatchNorm and all else as in prediction

    The network needs `nn.dropout(rate, always=True)`. Parameters are those of the same network with plain dropout, so
    that one trained already can be taken: only the functions are made anew.

    Args:
      net: a layer or network.
      params: as trained.
      state: as trained.
      x: (rows, ...).
      key: of the masks.
      n: number of passes; they are computed together and take n times the memory.

    Returns:
      (n, rows, ...), for `log_mean_probabilities`, `classification`, `regression`.

    Raises:
      ValueError, TypeError: for n < 1, what is no key, or a network in which nothing is drawn when predicting.

    >>> net = nn.serial(nn.dense(8), nn.batch_norm(), jax.nn.relu, nn.dropout(0.5, always=True), nn.dense(3))
    >>> x = jnp.ones((5, 4))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> logits = uncertainty.mc_dropout(net, params, state, x, jax.random.key(1), 20)
    >>> logits.shape, uncertainty.classification(logits).epistemic.shape
    ((20, 5, 3), (5,))

    Source: Gal and Ghahramani 2016, arXiv:1506.02142.
    """
    layer = as_layer(net)
    keys = jax.random.split(checks.key("mc_dropout", key), checks.positive_int("mc_dropout", "n", n))

    def predict(key: Key) -> PyTree:
        return layer.apply(params, state, x, train=False, key=key)[0]

    if not _depends(predict, keys):
        raise ValueError(
            f"mc_dropout: {layer.name} draws nothing when predicting, all passes would be the same; build it with "
            "nn.dropout(rate, always=True) at a rate > 0, its parameters are those of plain dropout"
        )
    return jax.vmap(predict)(keys)


def _depends(function: Callable[[Key], PyTree], keys: Array) -> bool:
    """Whether the function's value depends on its key: where it does, JAX refuses to map to one value for all keys."""
    try:
        jax.eval_shape(jax.vmap(function, out_axes=None), keys)
    except ValueError:
        return True
    return False
