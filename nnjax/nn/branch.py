"""Several paths from one input, and what comes of them: skip connections, concatenation."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import checks
from nnjax.nn._child import apply_part, check_count, init_part, out_shape, place
from nnjax.nn.as_layer import as_layer, identity
from nnjax.nn.serial import serial
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State

Merge = Callable[[Sequence[Array]], Array]


def branch(*paths: LayerLike, merge: Merge) -> Layer:
    """Several paths from the same input, merged.

        y = merge([f_1(x), …, f_n(x)])

    Args:
      paths: layers, or plain functions.
      merge: a function of the list of the paths' outputs.

    Shapes: as the paths and `merge` have them. Parameters and state are tuples with one entry for each path.

    Raises:
      ValueError: without paths, or for parameters of another number of paths; and what `merge` raises, with its place.

    >>> net = nn.branch(nn.dense(8), nn.identity(), merge=lambda ys: ys[0] * ys[1])
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 8)))
    >>> net.apply(params, state, jnp.ones((32, 8)), train=False)[0].shape
    (32, 8)
    """
    return _branch("branch", paths, merge)


def concat(*paths: LayerLike, axis: int = -1) -> Layer:
    """Several paths from the same input, side by side along an axis.

        y = [f_1(x), …, f_n(x)]

    Args:
      paths: layers, or plain functions.
      axis: of the outputs, the features by default.

    Raises:
      ValueError: without paths, or where the outputs differ along another axis.

    >>> net = nn.concat(nn.identity(), jnp.square)
    >>> net.apply(((), ()), ((), ()), jnp.ones((32, 4)), train=False)[0].shape
    (32, 8)
    """
    return _branch("concat", paths, lambda ys: jnp.concatenate(ys, axis))


def residual(*layers: LayerLike, shortcut: LayerLike | None = None) -> Layer:
    """A skip connection around layers.

        y = shortcut(x) + f(x),   f = serial(*layers)

    Args:
      layers: the layers of f, one after another.
      shortcut: what the input goes through on the other side, None for nothing; where f changes the shape, a layer that
        changes it alike.

    Shapes: x (batch, ...) -> y, the same without a shortcut. Parameters `(shortcut's, f's)`.

    Raises:
      ValueError: where the two sides differ in shape; nothing broadcasts.

    >>> net = nn.residual(nn.dense(8), jax.nn.relu)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 8)))
    >>> net.apply(params, state, jnp.ones((32, 8)), train=False)[0].shape
    (32, 8)

    Source: He et al. 2016, arXiv:1512.03385.
    """
    return _branch("residual", (identity() if shortcut is None else shortcut, serial(*layers)), _add)


def _add(ys: Sequence[Array]) -> Array:
    x, y = ys
    if x.shape != y.shape:
        raise ValueError(
            f"residual: the layers give {tuple(y.shape)}, the skip connection {tuple(x.shape)}; give a layer that "
            f"changes the shape alike, as in shortcut=nn.dense({y.shape[-1] if y.shape else 1})"
        )
    return x + y


def _branch(name: str, paths: Sequence[LayerLike], merge: Merge) -> Layer:
    parts = tuple(as_layer(path) for path in paths)
    n = len(parts)
    if n == 0:
        raise ValueError(f"{name}: at least one path is needed")

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        params, state = zip(*(init_part(name, i, n, part, key, x) for i, part in enumerate(parts)), strict=True)
        ys = []
        for i, part in enumerate(parts):
            with checks.located(place(name, i, n, part, x)):
                ys.append(out_shape(part, params[i], state[i], x))
        with checks.located(f"in the merge of {name}, input {checks.shapes(x)}"):
            jax.eval_shape(merge, ys)
        return params, state

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        check_count(name, n, params, state)
        ys, states = zip(
            *(
                apply_part(name, i, n, part, params[i], state[i], x, train=train, key=key)
                for i, part in enumerate(parts)
            ),
            strict=True,
        )
        with checks.located(f"in the merge of {name}, input {checks.shapes(x)}"):
            return merge(ys), states

    return Layer(name, init, apply)
