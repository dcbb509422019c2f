"""Count the floating-point operations of a traced program."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.types import PyTree

# Primitives that count as free, because they only create, move, convert or mark numbers
FREE = {
    "bitcast_convert_type", "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "copy_p", "device_put",
    "dynamic_slice", "dynamic_update_slice", "gather", "iota", "name", "optimization_barrier", "pad", "pvary",
    "reduce_precision", "reshape", "rev", "scatter", "select_n", "sharding_constraint", "slice", "sort", "split",
    "squeeze", "stop_gradient", "transpose",
}  # fmt: skip
MATMUL = {"dot_general", "conv_general_dilated"}


class Cost(NamedTuple):
    """The floating-point operations of a program, counted by kind."""

    matmul: int  # operations in matrix products and convolutions, for which accelerators have special units
    other: int
    unknown: int  # number of while loops of unknown length, whose bodies are counted once

    @property
    def total(self) -> int:
        """Return the total number of operations."""
        return self.matmul + self.other


def count_flops(function: Callable[..., PyTree], *args: PyTree, trips: int | None = None) -> Cost:
    """Count the floating-point operations of `function(*args)` by tracing it, without running it.

        matrix product    2 · rows · inner · columns · batch
        convolution       2 per product of a kernel element and an input element; padding is not counted
        reduction         inputs - outputs;  over windows: (window - 1) per output
        elementwise       1 per output element, for example +, exp or tanh
        scan              body times length;  cond: the most expensive branch, or the default platform's branch

    Data movement and operations with integer or boolean results are free. Matrix decompositions are underestimated:
    they count as elementwise operations. The compiled program may execute fewer operations, because it shares common
    subexpressions, or more, because of padding.

    Args:
      function: a function of arrays, such as `Run.step`.
      args: arguments of the function, as arrays or `jax.ShapeDtypeStruct`s; only shapes and dtypes matter.
      trips: number of iterations to assume for every while loop of unknown length. With None, the body is counted
        once, and the loop is counted in `Cost.unknown`.

    Raises:
      ValueError: if trips < 1.
      TypeError: if trips is not an integer, if `function` does not accept the arguments, or if they are not arrays.

    >>> from nnjax.debug import count_flops
    >>> params, x = {"w": jnp.ones((64, 10)), "b": jnp.ones(10)}, jnp.ones((32, 64))
    >>> count_flops(lambda params, x: nn.dense(10).apply(params, (), x, train=True)[0], params, x)
    Cost(matmul=40960, other=320, unknown=0)
    """
    checks.function_of("count_flops", "function", function, *(f"args[{i}]" for i in range(len(args))))
    checks.arrays("count_flops", "args", args)
    if trips is not None:
        checks.positive_int("count_flops", "trips", trips)
    return _count_program(jax.make_jaxpr(function)(*args).jaxpr, trips)


def _count_program(jaxpr: Any, trips: int | None) -> Cost:
    return _sum([_count_equation(equation, trips) for equation in jaxpr.eqns])


def _sum(costs: list[Cost]) -> Cost:
    return Cost(*(sum(counts) for counts in zip(Cost(0, 0, 0), *costs, strict=True)))


def _scale(cost: Cost, n: int) -> Cost:
    return Cost(cost.matmul * n, cost.other * n, cost.unknown)


def _count_equation(equation: Any, trips: int | None) -> Cost:
    from jax.extend.core import jaxprs_in_params  # imported here because it loads Pallas, which is slow

    name, params = equation.primitive.name, equation.params
    inner = [_count_program(jaxpr, trips) for jaxpr in jaxprs_in_params(params)]
    if name == "while":
        return _scale(_sum(inner), trips) if trips else _sum(inner)._replace(unknown=_sum(inner).unknown + 1)
    if name == "cond":  # platform-dependent branches compute the same result; the last one is the default
        return inner[-1] if params.get("branches_platforms") else max(inner, key=lambda cost: cost.total)
    if name == "scan":
        return _scale(_sum(inner), params["length"])
    if name == "shard_map":  # the inner program describes the work of one device; "manual_axes" is for JAX < 0.10.1
        axes = params["newly_manual_axes"] if "newly_manual_axes" in params else params["manual_axes"]
        return _scale(_sum(inner), math.prod(params["mesh"].shape[axis] for axis in axes))
    if inner and not name.startswith(("reduce", "scatter")):  # jit, checkpoint, custom_jvp_call, …
        return _sum(inner)
    count = _count_primitive(equation)
    return Cost(count, 0, 0) if name in MATMUL else Cost(0, count, 0)


def _count_primitive(equation: Any) -> int:
    """Count the operations of a primitive without inner programs."""
    name, params = equation.primitive.name, equation.params
    shapes = [var.aval.shape for var in equation.invars]
    count = sum(var.aval.size for var in equation.outvars if jnp.issubdtype(var.aval.dtype, jnp.inexact))
    if not count or name in FREE:
        count = 0
    elif name == "dot_general":
        ((contracted, _), _) = params["dimension_numbers"]
        count *= 2 * math.prod(shapes[0][axis] for axis in contracted)
    elif name == "conv_general_dilated":
        count = 2 * _count_products(params, shapes[0], shapes[1], equation.outvars[0].aval.shape)
    elif name.startswith("reduce_window"):
        count *= math.prod(params["window_dimensions"]) - 1
    elif name == "select_and_scatter_add":  # gradient of max pooling, which searches each window for its maximum
        count = math.prod(shapes[0]) * math.prod(params["window_dimensions"])
    elif name.startswith("reduce"):
        count = sum(map(math.prod, shapes[: len(equation.outvars)])) - count
    elif name.startswith("scatter"):
        count = math.prod(shapes[2])
    return int(count)


def _count_products(params: Any, x: tuple[int, ...], kernel: tuple[int, ...], y: tuple[int, ...]) -> int:
    """Count the products of kernel and input elements in a convolution, excluding zeros from padding and dilation."""
    numbers = params["dimension_numbers"]
    (_, _, *in_x), (out, channels, *in_kernel), (batch, _, *in_y) = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    products = y[batch] * kernel[out] * kernel[channels]
    for i, (stride, (before, _), x_dilation, kernel_dilation) in enumerate(
        zip(params["window_strides"], params["padding"], params["lhs_dilation"], params["rhs_dilation"], strict=True)
    ):
        offsets = np.arange(kernel[in_kernel[i]]) * kernel_dilation - before
        at = np.arange(y[in_y[i]])[:, None] * stride + offsets  # positions in the dilated input
        products *= int(((at >= 0) & (at % x_dilation == 0) & (at // x_dilation < x[in_x[i]])).sum())
    return products
