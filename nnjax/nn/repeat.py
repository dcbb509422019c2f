"""Repeat a block in a scan over stacked parameters."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from nnjax import checks
from nnjax.nn._child import apply_layer, check_arrays, output_shape
from nnjax.nn.as_layer import checked_layer
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State

GROUP = 8  # default number of copies per scan iteration on accelerators


def repeat(n: int, block: LayerLike, *, unroll: int | None = None) -> Layer:
    """Apply `n` copies of a block in sequence, each with its own parameters.

        y = f(p_n, … f(p_2, f(p_1, x)))

    The program contains the block only once and scans over the stacked parameters. Its size and compile time do not
    grow with n.

    Args:
      n: Number of copies.
      block: A layer whose output has the shape and dtype of its input.
      unroll: Number of copies per iteration of the scan. An accelerator launches each iteration separately, so larger
        groups run faster there but take longer to compile. None means 1 on CPUs and 8 elsewhere: on an H200, a
        step of 80 blocks took 2.8 ms with 1 and 1.4 ms with 8.

    Shapes: x (batch, ...) -> y, the same shape. Parameters and state are the block's, with a leading axis of length n.

    Raises:
      ValueError: if n < 1 or unroll < 1; in `init` and `apply`, if the block changes shape or dtype; in `apply`, if
        parameters or state are not stacked n times.
      TypeError: if n or unroll is not an integer, or the block is neither a layer nor a function.

    >>> net = nn.repeat(100, nn.residual(nn.layer_norm(), nn.dense(8), jax.nn.relu, nn.scale(0.0)))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 8)))
    >>> net.apply(params, state, jnp.ones((32, 8)), train=False)[0].shape
    (32, 8)
    """
    n = checks.positive_int("repeat", "n", n)
    unroll = None if unroll is None else min(checks.positive_int("repeat", "unroll", unroll), n)
    block = checked_layer("repeat", block)
    name = f"repeat({n}, {block.name})"

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        check_arrays(name, x)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(n))
        with checks.located(f"in {name}, input {checks.shapes(x)}"):
            # With vmap, the random numbers would take 3 times as long to compile
            params, state = lax.map(lambda k: block.init(k, x), keys)
            p, s = jax.tree.map(lambda leaf: leaf[0], (params, state))
            _check_unchanged(name, x, output_shape(block, p, s, x))
        return params, state

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        check_arrays(name, x)
        for path, leaf in jax.tree_util.tree_leaves_with_path((params, state)):
            if jnp.shape(leaf)[:1] != (n,):
                raise ValueError(
                    f"{name}: the first axis of {checks.path_name(path)} must have length {n}, got {jnp.shape(leaf)}"
                )

        def body(x: PyTree, copy: tuple[PyTree, PyTree, jax.Array]) -> tuple[PyTree, State]:
            p, s, i = copy
            with jax.named_scope(block.name):
                y, s = apply_layer(block, p, s, x, train=train, key=None if key is None else jax.random.fold_in(key, i))
            _check_unchanged(name, x, y)
            return y, s

        key = None if key is None else checks.key(name, key)
        with checks.located(f"in {name}, input {checks.shapes(x)}"):
            copies = (params, state, jnp.arange(n))
            if unroll is not None:
                return lax.scan(body, x, copies, unroll=unroll)
            in_groups = partial(lax.scan, body, unroll=min(n, GROUP))
            return lax.platform_dependent(x, copies, cpu=partial(lax.scan, body), default=in_groups)

    return Layer(name, init, apply)


def _check_unchanged(name: str, x: PyTree, y: PyTree) -> None:
    before, after = ([(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(tree)] for tree in (x, y))
    if before != after:
        raise ValueError(
            f"{name}: the block must return the shape and dtype of its input, got {after} from {before}; "
            "put a layer that changes them before the repeat"
        )
