"""Join parallel paths from the same input: skip connections and concatenation."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import checks
from nnjax.nn._child import apply_child, check_count, children_of, init_child
from nnjax.nn.as_layer import identity
from nnjax.nn.serial import serial
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State

Merge = Callable[[Sequence[Any]], Any]


def branch(*paths: LayerLike, merge: Merge) -> Layer:
    """Apply several paths to the same input and merge their outputs.

        y = merge([f_1(x), …, f_n(x)])

    Args:
      paths: Layers, or plain functions.
      merge: Function that combines the list of the paths' outputs into one output.

    Shapes: all paths receive the same x. Parameters and state are tuples with one entry per path.

    Raises:
      ValueError: if there is no path, or if parameters or state have the wrong number of entries.
      TypeError: if a path is neither a layer nor a function, or if `merge` is not a function or returns None. Other
        errors of `merge` get a note with the place in the network.

    >>> net = nn.branch(nn.dense(8), nn.identity(), merge=lambda ys: ys[0] * ys[1])
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 8)))
    >>> net.apply(params, state, jnp.ones((32, 8)), train=False)[0].shape
    (32, 8)
    """
    checks.function("branch", "merge", merge, "sum")
    return _branch("branch", paths, merge)


def concat(*paths: LayerLike, axis: int = -1) -> Layer:
    """Apply several paths to the same input and concatenate their outputs.

        y = [f_1(x), …, f_n(x)]

    Args:
      paths: Layers, or plain functions.
      axis: The axis to concatenate along; the default is the feature axis.

    Shapes: all paths receive the same x. Their outputs must have equal shapes except along `axis`.

    Raises:
      ValueError: if there is no path.
      TypeError: if `axis` is not an integer, if the outputs have no such axis, or if they differ in another axis.

    >>> net = nn.concat(nn.identity(), jnp.square)
    >>> net.apply(((), ()), ((), ()), jnp.ones((32, 4)), train=False)[0].shape
    (32, 8)
    """
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise TypeError(f"concat: axis must be an integer, got {axis!r}")

    def merge(ys: Sequence[Array]) -> Array:
        shapes = [tuple(y.shape) for y in ys]
        if len({len(shape) for shape in shapes}) > 1 or not -len(shapes[0]) <= axis < len(shapes[0]):
            raise TypeError(f"concat: the outputs must have the same number of axes and an axis {axis}, got {shapes}")
        if len({(*shape[:axis], *shape[axis:][1:]) for shape in shapes}) > 1:
            raise TypeError(f"concat: the outputs must have equal shapes except along axis {axis}, got {shapes}")
        return jnp.concatenate(ys, axis)

    return _branch("concat", paths, merge)


def residual(*layers: LayerLike, shortcut: LayerLike | None = None) -> Layer:
    """Add a skip connection around layers.

        y = shortcut(x) + f(x),   f = serial(*layers)

    Args:
      layers: The layers of f, in sequence.
      shortcut: The layer on the skip connection; None means the identity. If f changes the shape, the shortcut must
        return the same shape as f.

    Shapes: x (batch, ...) -> y, which has the shape of x unless there is a shortcut. Parameters are the tuple
    `(parameters of the shortcut, parameters of f)`.

    Raises:
      ValueError: if the shapes of shortcut(x) and f(x) differ; they are not broadcast.

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
            f"residual: the layers return {tuple(y.shape)}, the skip connection {tuple(x.shape)}; pass a shortcut "
            f"that returns the same shape, such as shortcut=nn.dense({y.shape[-1] if y.shape else 1})"
        )
    return x + y


def _branch(name: str, paths: Sequence[LayerLike], merge: Merge) -> Layer:
    children = children_of(name, paths)
    if not children:
        raise ValueError(f"{name}: at least one path is needed")

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        params, state, ys = zip(*(init_child(child, key, x) for child in children), strict=True)
        with checks.located(f"in the merge of {name}, input {checks.shapes(x)}"):
            if jax.eval_shape(merge, ys) is None:
                raise TypeError(f"{name}: merge must return an array, got None")
        return params, state

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        check_count(children, name, params, state)
        outputs = [
            apply_child(child, p, s, x, train=train, key=key)
            for child, p, s in zip(children, params, state, strict=True)
        ]
        ys, states = zip(*outputs, strict=True)
        with checks.located(f"in the merge of {name}, input {checks.shapes(x)}"):
            return merge(ys), states

    return Layer(name, init, apply)
