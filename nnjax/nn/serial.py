"""Layers one after another."""

from nnjax import checks
from nnjax.nn._child import apply_part, check_count, init_part, out_shape, place
from nnjax.nn.as_layer import as_layer
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State


def serial(*layers: LayerLike) -> Layer:
    """Layers one after another, the forward pass.

        y = f_n(… f_2(f_1(x)))

    Args:
      layers: layers, or plain functions such as `jax.nn.relu`.

    Shapes: those of the first layer's input and the last layer's output. Parameters and state are tuples with one entry
    for each layer, `()` where it has none.

    Raises:
      TypeError: for what is neither a layer nor a function.
      ValueError: for parameters of another number of layers. Errors of a layer get its place as a note.

    >>> net = nn.serial(nn.dense(32), jax.nn.relu, nn.dense(10))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 64)))
    >>> net.apply(params, state, jnp.ones((32, 64)), train=False)[0].shape
    (32, 10)
    """
    parts = tuple(as_layer(layer) for layer in layers)
    name, n = "serial", len(parts)

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        params, state = [], []
        for i, part in enumerate(parts):
            p, s = init_part(name, i, n, part, key, x)
            with checks.located(place(name, i, n, part, x)):
                x = out_shape(part, p, s, x)
            params.append(p)
            state.append(s)
        return tuple(params), tuple(state)

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        check_count(name, n, params, state)
        states = []
        for i, part in enumerate(parts):
            x, s = apply_part(name, i, n, part, params[i], state[i], x, train=train, key=key)
            states.append(s)
        return x, tuple(states)

    return Layer(name, init, apply)
