"""Exclude layers from training."""

from nnjax.nn._child import apply_layer
from nnjax.nn.as_layer import checked_layer
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State


def frozen(layer: LayerLike) -> Layer:
    """Keep a layer's parameters in the state, where no optimizer changes them.

        y = f(params, state, x, train=False)

    The layer is always applied in evaluation mode: BatchNorm statistics stay the same, and dropout does nothing. The
    parameters get no gradient and no optimizer moments. To train some of a layer's parameters, use `optax.partition`
    instead.

    Args:
      layer: Any layer or network.

    Shapes: as for the layer. There are no parameters; the state is the layer's pair (params, state).

    Raises:
      TypeError: if the argument is neither a layer nor a function.

    >>> net = nn.named(body=nn.frozen(nn.dense(8)), head=nn.dense(2))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> params["body"], state["body"][0]["w"].shape
    ((), (4, 8))
    """
    inner = checked_layer("frozen", layer)

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        return (), inner.init(key, x)

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        fixed_params, fixed_state = state
        y, _ = apply_layer(inner, fixed_params, fixed_state, x, train=False, key=key)
        return y, state

    return Layer(f"frozen({inner.name})", init, apply)
