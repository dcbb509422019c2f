"""Predict with Monte Carlo dropout."""

from collections.abc import Callable

import jax
from jax import Array

from nnjax import checks
from nnjax.nn import as_layer
from nnjax.types import Key, LayerLike, Params, PyTree, State


def mc_dropout(net: LayerLike, params: Params, state: State, x: PyTree, key: Key, n: int) -> PyTree:
    """Predict `n` times with dropout active, which turns one network into an ensemble (Monte Carlo dropout).

        y_i = net(x; mask_i),   i = 1 … n;   all other layers, such as BatchNorm, are in evaluation mode

    The network must contain `nn.dropout(rate, always=True)`. Its parameters have the same structure as with
    plain dropout, so parameters trained with plain dropout can be used.

    Args:
      net: A layer or network.
      params: Trained parameters.
      state: State after training.
      x: Inputs of shape (rows, ...).
      key: Random key for the masks.
      n: Number of predictions. They are computed together and need n times the memory.

    Returns:
      Predictions of shape (n, rows, ...), for `log_mean_probabilities` and the decompositions.

    Raises:
      ValueError: if n < 1, or if the network draws no random numbers in prediction.
      TypeError: if the key is not a random key.

    >>> net = nn.serial(nn.dense(8), nn.batch_norm(), jax.nn.relu, nn.dropout(0.5, always=True), nn.dense(3))
    >>> x = jnp.ones((5, 4))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> logits = uncertainty.mc_dropout(net, params, state, x, jax.random.key(1), 20)
    >>> logits.shape, uncertainty.entropy_decomposition(logits).epistemic.shape
    ((20, 5, 3), (5,))

    Source: Gal and Ghahramani 2016, arXiv:1506.02142.
    """
    layer = as_layer(net)
    keys = jax.random.split(checks.key("mc_dropout", key), checks.positive_int("mc_dropout", "n", n))

    def predict(key: Key) -> PyTree:
        return layer.apply(params, state, x, train=False, key=key)[0]

    if not _depends_on_key(predict, keys):
        raise ValueError(
            f"mc_dropout: {layer.name} draws nothing in prediction, so all predictions would be equal; build it with "
            "nn.dropout(rate, always=True) and a rate > 0; it takes the parameters trained with plain dropout"
        )
    return jax.vmap(predict)(keys)


def _depends_on_key(function: Callable[[Key], PyTree], keys: Array) -> bool:
    """Return True if the output depends on the key; JAX then refuses to return it from `vmap` as unbatched."""
    try:
        jax.eval_shape(jax.vmap(function, out_axes=None), keys)
    except ValueError:
        return True
    return False
