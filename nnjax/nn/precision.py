"""Compute in mixed precision."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from nnjax import checks
from nnjax.nn._child import apply_layer, check_arrays
from nnjax.nn.as_layer import checked_layer
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State


def with_precision(
    layer: LayerLike,
    param: DTypeLike = jnp.float32,
    compute: DTypeLike = jnp.bfloat16,
    output: DTypeLike = jnp.float32,
) -> Layer:
    """Store a layer's parameters in one dtype and compute in another.

        y = output(f(compute(params), state, compute(x)))

    Gradients have the dtype of the parameters, so the optimizer works in that precision. The state is not cast;
    BatchNorm computes and stores its statistics in float32.

    Args:
      layer: Any layer or network.
      param: Dtype of the parameters.
      compute: Dtype to which inputs and parameters are cast for the computation.
      output: Dtype of the result.

    Shapes: as for the layer.

    Raises:
      TypeError: if a dtype is not floating-point.

    >>> net = nn.with_precision(nn.dense(10))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 64)))
    >>> params["w"].dtype, net.apply(params, state, jnp.ones((32, 64)), train=False)[0].dtype
    (dtype('float32'), dtype('float32'))

    Source: Micikevicius et al. 2018, arXiv:1710.03740, without loss scaling, which bfloat16 does not need.
    """
    for name, dtype in (("param", param), ("compute", compute), ("output", output)):
        checks.floating_dtype("with_precision", name, dtype)
    inner = checked_layer("with_precision", layer)

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        check_arrays("with_precision", x)
        params, state = inner.init(key, jax.eval_shape(lambda x: _cast(x, param), x))
        return _cast(params, param), state

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        check_arrays("with_precision", x)
        y, state = apply_layer(inner, _cast(params, compute), state, _cast(x, compute), train=train, key=key)
        return _cast(y, output), state

    return Layer(f"with_precision({inner.name}, {jnp.dtype(compute).name})", init, apply)


def _cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """Cast the floating leaves; leave integers and keys unchanged."""
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(jnp.result_type(a), jnp.floating) else a, tree)
