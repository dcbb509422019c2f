"""Apply layers in sequence, with named parameters."""

from collections.abc import Mapping

from nnjax import checks
from nnjax.nn._child import apply_child, children_of, init_child
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State


def named(**layers: LayerLike) -> Layer:
    """Apply layers in sequence like `serial`, but with named parameters.

        y = f_n(… f_2(f_1(x)))

    Args:
      layers: Layers or plain functions by name, in order of application.

    Shapes: x is the input of the first layer, y the output of the last. Parameters and state are dictionaries with one
    entry per layer. The initial values are the same as for `serial` with the same layers.

    Raises:
      TypeError: if an argument is neither a layer nor a function.
      ValueError: if the names in parameters or state do not match. Errors raised by a layer get a note with its place
        in the network.

    >>> net = nn.named(body=nn.mlp([32], 16), head=nn.dense(10))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 64)))
    >>> params["head"]["w"].shape
    (16, 10)
    """
    return named_sequence("named", layers)


def named_sequence(name: str, layers: Mapping[str, LayerLike]) -> Layer:
    """Apply layers in sequence, with parameters named by their keys, as a layer with the given name."""
    children = children_of(name, tuple(layers.values()), tuple(layers))

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        params, state = {}, {}
        for child in children:
            params[child.label], state[child.label], x = init_child(child, key, x)
        return params, state

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        for part, tree in (("params", params), ("state", state)):
            if not isinstance(tree, dict) or tree.keys() != layers.keys():
                got = sorted(tree) if isinstance(tree, dict) else type(tree).__name__
                raise ValueError(f"{name}: {part} must be a dictionary of {', '.join(layers)}, got {got}")
        states = {}
        for child in children:
            p, s = params[child.label], state[child.label]
            x, states[child.label] = apply_child(child, p, s, x, train=train, key=key)
        return x, states

    return Layer(name, init, apply)
