"""The summary of a network: layers, output shapes and numbers of parameters."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from nnjax import checks
from nnjax.nn._child import MARK, check_arrays
from nnjax.nn.as_layer import checked_layer
from nnjax.types import LayerLike, PyTree


class Row(NamedTuple):
    """One layer in a summary."""

    path: tuple[int, ...]  # indices that lead to the layer, and to its parameters in the tree of parameters
    name: str
    output: str  # output shape, as text
    params: int  # number of trained values, summed over all copies of a repeated block


class Summary(NamedTuple):
    """The layers of a network in order, and its totals; `str` renders the table."""

    name: str
    rows: tuple[Row, ...]
    params: int  # number of trained values
    state: int  # number of untrained values, such as running statistics

    def __str__(self) -> str:
        cells = [("layer", "output", "parameters")]
        cells += [("  " * (len(row.path) - 1) + row.name, row.output, f"{row.params:,}") for row in self.rows]
        cells += [(self.name, "", f"{self.params:,}")]
        left, middle, right = (max(len(cell[i]) for cell in cells) for i in range(3))
        return "\n".join(f"{a:<{left}}  {b:<{middle}}  {c:>{right}}" for a, b, c in cells)


def summary(net: LayerLike, x: PyTree) -> Summary:
    """Summarise a network by tracing it; nothing is computed.

    Args:
      net: A layer or network. A custom combinator appears as a single layer.
      x: An input, or its `jax.ShapeDtypeStruct`; only shape and dtype are read.

    >>> print(nn.summary(nn.mlp([32], 10), jax.ShapeDtypeStruct((1, 64), jnp.float32)))
    layer      output   parameters
    flatten    (1, 64)           0
    dense(32)  (1, 32)       2,080
    relu       (1, 32)           0
    dense(10)  (1, 10)         330
    mlp                      2,410
    """
    net = checked_layer("summary", net)
    check_arrays("summary", x)
    x = jax.eval_shape(lambda x: x, x)
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    jaxpr = jax.make_jaxpr(lambda p, s, x: net.apply(p, s, x, train=False))(params, state, x)
    outputs: dict[tuple[str, ...], list[Any]] = {}
    for scope, aval in _marked(jaxpr.jaxpr, ()):
        outputs.setdefault(scope, []).append(aval)
    rows = []
    for scope, avals in outputs.items():
        path = tuple(int(label.split("_", 1)[0]) for label in scope)
        name = scope[-1].split("_", 1)[1].replace("|", "/")
        layer_params = _at(params, path)
        if layer_params is not None:
            rows.append(Row(path, name, checks.shapes(avals), _size(layer_params)))
    # A combinator's output is marked after its children's outputs; sorting by path moves it before them
    return Summary(net.name, tuple(sorted(rows, key=lambda row: row.path)), _size(params), _size(state))


def _marked(jaxpr: Any, outer: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield scope and shape of every marked output in the program and in the programs nested in it."""
    from jax.extend.core import jaxprs_in_params  # imported here because it loads Pallas

    for equation in jaxpr.eqns:
        stack = str(equation.source_info.name_stack).split("/")
        scope = (*outer, *(label for label in stack if re.match(r"\d+_", label)))
        if equation.primitive.name == "name" and equation.params["name"] == MARK:
            yield scope, equation.outvars[0].aval
        for inner in jaxprs_in_params(equation.params):
            yield from _marked(inner, scope)


def _at(params: PyTree, path: tuple[int, ...]) -> PyTree | None:
    """Return the parameters at a path, None if a custom combinator stores them differently."""
    for i in path:
        if not isinstance(params, tuple) or i >= len(params):
            return None
        params = params[i]
    return params


def _size(tree: PyTree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
