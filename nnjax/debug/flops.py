"""The cost of a program in floating-point operations, counted from its shapes."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.types import PyTree

# What moves or marks numbers without computing any.
FREE = {
    "bitcast_convert_type", "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "copy_p", "device_put",
    "dynamic_slice", "dynamic_update_slice", "gather", "iota", "name", "optimization_barrier", "pad", "pvary",
    "reduce_precision", "reshape", "rev", "scatter", "select_n", "sharding_constraint", "slice", "sort", "split",
    "squeeze", "stop_gradient", "transpose",
}  # fmt: skip
MATMUL = {"dot_general", "conv_general_dilated"}


class Cost(NamedTuple):
    """Floating-point operations of a program."""

    matmul: int  # in matrix products and convolutions, which an accelerator has units of their own for
    other: int
    unknown: int  # while loops of unknown length, whose body counts once

    @property
    def total(self) -> int:
        """All of them."""
        return self.matmul + self.other


def flops(function: Callable[..., PyTree], *args: PyTree, trips: int | None = None) -> Cost:
    """The floating-point operations of `function(*args)`, read off the program that it traces to; nothing is computed.

        matrix product    2 · rows · inner · columns · batch
        convolution       2 for each product of a kernel's number with one of the input, padding not counted
        reduction         numbers before - numbers after;  over windows: (window - 1) for each number after
        elementwise       1 for each number after, be it +, exp or tanh
        scan              its body times its length;  cond: its dearest branch, of those for platforms the default

    Results that are not floating numbers (comparisons, random bits, integers) and moves of numbers count nothing.
    Decompositions of linear algebra count as elementwise, which is too little. The compiler may do less (by common
    subexpressions) or more (padding).

    Args:
      function: of arrays; `Run.step` for one.
      args: its arguments, or their `jax.ShapeDtypeStruct`; only shapes and dtypes are read.
      trips: iterations of every while loop whose length the program does not tell; None counts its body once and says
        so in `Cost.unknown`.

    Raises:
      ValueError, TypeError: for trips < 1.

    >>> from nnjax.debug.flops import flops
    >>> params, x = {"w": jnp.ones((64, 10)), "b": jnp.ones(10)}, jnp.ones((32, 64))
    >>> flops(lambda params, x: nn.dense(10).apply(params, (), x, train=True)[0], params, x)
    Cost(matmul=40960, other=320, unknown=0)
    """
    if trips is not None:
        checks.positive_int("flops", "trips", trips)
    return _program(jax.make_jaxpr(function)(*args).jaxpr, trips)


def _program(jaxpr: Any, trips: int | None) -> Cost:
    return _sum([_equation(equation, trips) for equation in jaxpr.eqns])


def _sum(costs: list[Cost]) -> Cost:
    return Cost(*(sum(counts) for counts in zip(Cost(0, 0, 0), *costs, strict=True)))


def _times(cost: Cost, n: int) -> Cost:
    return Cost(cost.matmul * n, cost.other * n, cost.unknown)


def _equation(equation: Any, trips: int | None) -> Cost:
    from jax.extend.core import jaxprs_in_params  # loads Pallas, which importing nnjax should not

    name, params = equation.primitive.name, equation.params
    inner = [_program(jaxpr, trips) for jaxpr in jaxprs_in_params(params)]
    if name == "while":
        return _times(_sum(inner), trips) if trips else _sum(inner)._replace(unknown=_sum(inner).unknown + 1)
    if name == "cond":  # branches for platforms do the same work; the last is for those without one of their own
        return inner[-1] if params.get("branches_platforms") else max(inner, key=lambda cost: cost.total)
    if name == "scan":
        return _times(_sum(inner), params["length"])
    if name == "shard_map":  # its program is that of one device
        return _times(_sum(inner), math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"]))
    if inner and not name.startswith(("reduce", "scatter")):  # jit, checkpoint, custom_jvp_call, …
        return _sum(inner)
    count = _operations(equation)
    return Cost(count, 0, 0) if name in MATMUL else Cost(0, count, 0)


def _operations(equation: Any) -> int:
    """Those of a primitive that holds no program."""
    name, params = equation.primitive.name, equation.params
    shapes = [var.aval.shape for var in equation.invars]
    count = sum(var.aval.size for var in equation.outvars if jnp.issubdtype(var.aval.dtype, jnp.inexact))
    if not count or name in FREE:
        count = 0
    elif name == "dot_general":
        ((contracted, _), _) = params["dimension_numbers"]
        count *= 2 * math.prod(shapes[0][axis] for axis in contracted)
    elif name == "conv_general_dilated":
        count = 2 * _products(params, shapes[0], shapes[1], equation.outvars[0].aval.shape)
    elif name.startswith("reduce_window"):
        count *= math.prod(params["window_dimensions"]) - 1
    elif name == "select_and_scatter_add":  # the gradient of a max-pool: the search in each window, and the sum
        count = math.prod(shapes[0]) * math.prod(params["window_dimensions"])
    elif name.startswith("reduce"):
        count = sum(map(math.prod, shapes[: len(equation.outvars)])) - count
    elif name.startswith("scatter"):
        count = math.prod(shapes[2])
    return int(count)


def _products(params: Any, x: tuple[int, ...], kernel: tuple[int, ...], y: tuple[int, ...]) -> int:
    """Products in a convolution of a number of the kernel with one of the input, not of padding and dilation."""
    numbers = params["dimension_numbers"]
    (_, _, *in_x), (out, into, *in_kernel), (batch, _, *in_y) = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    products = y[batch] * kernel[out] * kernel[into]
    for i, (stride, (before, _), spread, gap) in enumerate(
        zip(params["window_strides"], params["padding"], params["lhs_dilation"], params["rhs_dilation"], strict=True)
    ):
        at = np.arange(y[in_y[i]])[:, None] * stride + np.arange(kernel[in_kernel[i]])[None] * gap - before
        products *= int(((at >= 0) & (at % spread == 0) & (at // spread < x[in_x[i]])).sum())
    return products
