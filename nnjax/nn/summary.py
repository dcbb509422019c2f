"""The table of a network: layers, output shapes, parameters."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from nnjax import checks
from nnjax.nn._child import MARK
from nnjax.nn.as_layer import as_layer
from nnjax.types import LayerLike, PyTree


class Row(NamedTuple):
    """One layer of the table."""

    path: tuple[int, ...]  # its position in the tree of layers, and of its parameters in the tree of parameters
    name: str
    output: str  # shape, as text
    params: int  # trained numbers, all copies of a repeated block together


class Summary(NamedTuple):
    """The layers of a network in their order, and its totals; `str` draws the table."""

    name: str
    rows: tuple[Row, ...]
    params: int
    state: int

    def __str__(self) -> str:
        cells = [("layer", "output", "parameters")]
        cells += [("  " * (len(row.path) - 1) + row.name, row.output, f"{row.params:,}") for row in self.rows]
        cells += [(self.name, "", f"{self.params:,}")]
        left, middle, right = (max(len(cell[i]) for cell in cells) for i in range(3))
        return "\n".join(f"{a:<{left}}  {b:<{middle}}  {c:>{right}}" for a, b, c in cells)


def summary(net: LayerLike, x: PyTree) -> Summary:
    """The table of a network, read off the program that it traces to; nothing is computed.

    Args:
      net: a layer or network; parts of one's own combinators show as one layer.
      x: an input, or its `jax.ShapeDtypeStruct`; only shape and dtype are read.

    >>> print(nn.summary(nn.mlp([32], 10), jax.ShapeDtypeStruct((1, 64), jnp.float32)))
    layer      output   parameters
    flatten    (1, 64)           0
    dense(32)  (1, 32)       2,080
    relu       (1, 32)           0
    dense(10)  (1, 10)         330
    mlp                      2,410
    """
    net = as_layer(net)
    x = jax.eval_shape(lambda x: x, x)
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    jaxpr = jax.make_jaxpr(lambda p, s, x: net.apply(p, s, x, train=False))(params, state, x)
    outputs: dict[tuple[str, ...], list[Any]] = {}
    for scope, aval in _marked(jaxpr.jaxpr, ()):
        outputs.setdefault(scope, []).append(aval)
    # A part's outputs are marked after those of its own parts: sorting by position puts it before them.
    rows = []
    for scope, avals in outputs.items():
        path = tuple(int(part.split("_", 1)[0]) for part in scope)
        name = scope[-1].split("_", 1)[1].replace("|", "/")
        own = _at(params, path)
        if own is not None:
            rows.append(Row(path, name, checks.shapes(avals), _size(own)))
    return Summary(net.name, tuple(sorted(rows, key=lambda row: row.path)), _size(params), _size(state))


def _marked(jaxpr: Any, outer: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Scope and shape of every marked output, in the program and in the programs inside it."""
    from jax.extend.core import jaxprs_in_params  # loads Pallas, which importing nnjax should not

    for equation in jaxpr.eqns:
        stack = str(equation.source_info.name_stack).split("/")
        scope = (*outer, *(part for part in stack if re.match(r"\d+_", part)))
        if equation.primitive.name == "name" and equation.params["name"] == MARK:
            yield scope, equation.outvars[0].aval
        for inner in jaxprs_in_params(equation.params):
            yield from _marked(inner, scope)


def _at(params: PyTree, path: tuple[int, ...]) -> PyTree | None:
    """The parameters at a path, None where a combinator of one's own keeps them in another way."""
    for i in path:
        if not isinstance(params, tuple) or i >= len(params):
            return None
        params = params[i]
    return params


def _size(tree: PyTree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
