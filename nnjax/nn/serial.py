"""Apply layers in sequence."""

from nnjax import checks
from nnjax.nn._child import apply_child, check_count, children_of, init_child
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State


def serial(*layers: LayerLike) -> Layer:
    """Apply layers in sequence.

        y = f_n(… f_2(f_1(x)))

    Args:
      layers: Layers, or plain functions such as `jax.nn.relu`.

    Shapes: x is the input of the first layer, y the output of the last. Parameters and state are tuples with one entry
    per layer, `()` for a layer that has none.

    Raises:
      TypeError: if an argument is neither a layer nor a function.
      ValueError: if parameters or state have the wrong number of entries. Errors raised by a layer get a note with its
        place in the network.

    >>> net = nn.serial(nn.dense(32), jax.nn.relu, nn.dense(10))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 64)))
    >>> net.apply(params, state, jnp.ones((32, 64)), train=False)[0].shape
    (32, 10)
    """
    children = children_of("serial", layers)

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        key = checks.key("serial", key, x)
        params, state = [], []
        for child in children:
            p, s, x = init_child(child, key, x)
            params.append(p)
            state.append(s)
        return tuple(params), tuple(state)

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        check_count(children, "serial", params, state)
        states = []
        for child, p, s in zip(children, params, state, strict=True):
            x, new = apply_child(child, p, s, x, train=train, key=key)
            states.append(new)
        return x, tuple(states)

    return Layer("serial", init, apply)
