"""Summarise a network: layers, output shapes and numbers of parameters."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import jax

from nnjax import checks
from nnjax.nn._child import MARK, check_arrays
from nnjax.nn.as_layer import checked_layer
from nnjax.types import LayerLike, PyTree

Path: TypeAlias = tuple[int | str, ...]


class Row(NamedTuple):
    """One layer in a summary."""

    path: Path  # positions or names that lead to the layer's parameters in the parameter tree
    name: str
    output: str  # output shape, as a string
    params: int  # number of trained values, summed over all copies of a repeated block


class Summary(NamedTuple):
    """The layers of a network in order, and the totals; `str` renders them as a table."""

    name: str
    rows: tuple[Row, ...]
    params: int  # number of trained values
    state: int  # number of untrained values, such as running statistics

    def __str__(self) -> str:
        cells = [("layer", "path", "output", "parameters")]
        for row in self.rows:
            path = "/".join(map(str, row.path))
            cells.append(("  " * (len(row.path) - 1) + row.name, path, row.output, f"{row.params:,}"))
        cells.append((self.name, "", "", f"{self.params:,}"))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [[f"{cell:<{width}}" for cell, width in zip(row[:3], widths, strict=False)] for row in cells]
        return "\n".join("  ".join([*line, f"{row[3]:>{widths[3]}}"]) for line, row in zip(lines, cells, strict=True))


def summary(net: LayerLike, x: PyTree) -> Summary:
    """Summarise a network by tracing it, without computing anything.

    Args:
      net: A layer or network. A custom combinator appears as a single layer.
      x: An input or its `jax.ShapeDtypeStruct`; only shape and dtype matter.

    Returns:
      A `Summary`, which prints as a table.

    >>> print(nn.summary(nn.mlp([32], 10), jax.ShapeDtypeStruct((1, 64), jnp.float32)))
    layer      path  output   parameters
    flatten    0     (1, 64)           0
    dense(32)  1     (1, 32)       2,080
    relu       2     (1, 32)           0
    dense(10)  3     (1, 10)         330
    mlp                            2,410
    """
    net = checked_layer("summary", net)
    check_arrays("summary", x)
    x = jax.eval_shape(lambda x: x, x)
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    jaxpr = jax.make_jaxpr(lambda p, s, x: net.apply(p, s, x, train=False))(params, state, x)
    outputs: dict[tuple[str, ...], list[Any]] = {}
    for scope, equation in _scoped_equations(jaxpr.jaxpr, ()):
        if equation.primitive.name == "name" and equation.params["name"] == MARK:
            outputs.setdefault(scope, []).append(equation.outvars[0].aval)
    rows = []
    # A combinator's output is marked after its children's outputs; sorting by position moves it before them
    for scope, avals in sorted(outputs.items(), key=lambda item: [int(label.split("_", 1)[0]) for label in item[0]]):
        path = tuple(_parse_label(label)[0] for label in scope)
        name = _parse_label(scope[-1])[1].replace("|", "/")
        layer_params = _subtree(params, path)
        if layer_params is not None:
            rows.append(Row(path, name, checks.shapes(avals), _size(layer_params)))
    return Summary(net.name, tuple(rows), _size(params), _size(state))


def layer_equations(jaxpr: Any) -> Iterator[tuple[Path, str, Any]]:
    """Yield all jaxpr equations inside layers, each with the path and name of its innermost layer."""
    for scope, equation in _scoped_equations(jaxpr, ()):
        if scope:
            yield tuple(_parse_label(label)[0] for label in scope), _parse_label(scope[-1])[1], equation


def _scoped_equations(jaxpr: Any, outer: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the equations of a jaxpr and of the jaxprs nested in it, each with the labels of its layers."""
    from jax.extend.core import jaxprs_in_params  # imported here because it loads Pallas

    for equation in jaxpr.eqns:
        stack = str(equation.source_info.name_stack).split("/")
        scope = (*outer, *(label for label in stack if re.match(r"\d+_", label)))
        yield scope, equation
        inside = list(jaxprs_in_params(equation.params))
        if equation.params.get("branches_platforms"):  # the same computation, once for each platform
            inside = inside[:1]
        for inner in inside:
            yield from _scoped_equations(inner, scope)


def _parse_label(label: str) -> tuple[int | str, str]:
    """Split a label such as "1_dense(10)" or "1_head=dense(10)" into the child's position or name and the layer."""
    position, rest = label.split("_", 1)
    name, equals, layer = rest.partition("=")
    return (name, layer) if equals and name.isidentifier() else (int(position), rest)


def _subtree(params: PyTree, path: Path) -> PyTree | None:
    """Return the parameters at a path, or None if a custom combinator stores them differently."""
    for step in path:
        known = range(len(params)) if isinstance(params, tuple) else params if isinstance(params, dict) else ()
        if step not in known:
            return None
        params = params[step]
    return params


def _size(tree: PyTree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
