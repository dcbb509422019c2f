"""Convert pytrees to the layouts that optimizers accept, such as a flat dict, a list, one array or tensors."""

import contextlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.types import PyTree


class Layout(NamedTuple):
    """A way to pass a pytree. `pack` creates the argument, and `unpack` converts a result in this layout to a pytree.

    `pack_grads` differs from `pack` if gradients have other names or types. `attach` writes new parameters and
    gradients into an argument that holds both, such as tensors with `.grad`; None if gradients are passed separately.
    """

    name: str
    pack: Callable[[PyTree], Any]
    unpack: Callable[[Any, PyTree], PyTree]  # (result, pytree with the desired structure) -> pytree
    pack_grads: Callable[[PyTree], Any]
    attach: Callable[[Any, PyTree, PyTree], None] | None = None
    eager: bool = False  # True if the layout does not work under jit


class Assignable(np.ndarray):
    """An array with the methods of Keras's variables."""

    def assign(self, value: Any) -> None:
        """Write new values."""
        self[...] = value

    def assign_add(self, value: Any) -> None:
        """Add to the values."""
        self[...] = self + value

    def assign_sub(self, value: Any) -> None:
        """Subtract from the values."""
        self[...] = self - value

    def numpy(self) -> np.ndarray:
        """Return a copy as a plain array."""
        return np.array(self)


class Parameters(list[Any]):
    """A list of parameters with a method `parameters`, like a PyTorch model."""

    def parameters(self) -> "Parameters":
        """Return the list itself."""
        return self


class Variable:
    """A parameter with its gradient, as in micrograd."""

    def __init__(self, data: Any) -> None:
        self.data, self.grad = data, np.zeros_like(data)


def _paths(tree: PyTree) -> dict[str, Any]:
    return {checks.path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _with_leaves(like: PyTree, leaves: list[Any]) -> PyTree:
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _from_dict(values: Any, like: PyTree) -> PyTree:
    return _with_leaves(like, [values[name] for name in _paths(like)])


def _to_array(tree: PyTree) -> Any:
    leaves = jax.tree.leaves(tree)
    xp = np if all(isinstance(leaf, (np.ndarray, np.generic)) for leaf in leaves) else jnp  # a scalar is np.generic
    return xp.concatenate([leaf.reshape(-1) for leaf in leaves])


def _from_array(values: Any, like: PyTree) -> PyTree:
    leaves = jax.tree.leaves(like)
    ends = np.cumsum([np.size(leaf) for leaf in leaves])
    pieces = [values[end - np.size(leaf) : end] for leaf, end in zip(leaves, ends, strict=True)]
    pieces = [piece.reshape(leaf.shape).astype(leaf.dtype) for piece, leaf in zip(pieces, leaves, strict=True)]
    return _with_leaves(like, pieces)


def layer_pairs(tree: PyTree) -> list[tuple[int, int]]:
    """Return the leaf indices (weight, bias) of each layer; the rarer of the two kinds of leaves is repeated."""
    leaves = jax.tree.leaves(tree)
    weights = [i for i, leaf in enumerate(leaves) if np.ndim(leaf) >= 2] or list(range(len(leaves)))
    biases = [i for i, leaf in enumerate(leaves) if np.ndim(leaf) < 2] or weights
    count = max(len(weights), len(biases))
    return [(weights[k % len(weights)], biases[k % len(biases)]) for k in range(count)]


def _to_pairs(tree: PyTree) -> list[tuple[Any, Any]]:
    leaves = jax.tree.leaves(tree)
    # copies, because repeated leaves must not share memory
    return [(leaves[i].copy(), leaves[j].copy()) for i, j in layer_pairs(tree)]


def _to_lists(tree: PyTree) -> list[list[Any]]:
    return [list(pair) for pair in _to_pairs(tree)]


def _to_assignable(tree: PyTree) -> list[Any]:
    return [np.array(leaf).view(Assignable) for leaf in jax.tree.leaves(tree)]


def from_pairs(values: Any, like: PyTree) -> PyTree:
    """Return a tree like `like` with the leaves from `(w, b)` pairs. This inverts `_to_pairs`."""
    leaves = list(jax.tree.leaves(like))
    for pair, indices in reversed(list(zip(values, layer_pairs(like), strict=True))):
        for i, leaf in zip(indices, pair, strict=True):
            leaves[i] = leaf
    return _with_leaves(like, leaves)


def _named_pairs(w: str, b: str) -> tuple[Callable[[PyTree], Any], Callable[[Any, PyTree], PyTree]]:
    """Return `pack` and `unpack` for a flat dict such as {"W1": …, "b1": …}, from names such as "W{k}" and "b{k}"."""

    def pack(tree: PyTree) -> dict[str, Any]:
        pairs = enumerate(_to_pairs(tree), 1)
        return {name.format(k=k): leaf for k, pair in pairs for name, leaf in zip((w, b), pair, strict=True)}

    def unpack(values: Any, like: PyTree) -> PyTree:
        count = len(layer_pairs(like))
        return from_pairs([(values[w.format(k=k)], values[b.format(k=k)]) for k in range(1, count + 1)], like)

    return pack, unpack


def _to_layers(tree: PyTree) -> dict[str, dict[str, Any]]:
    return {f"layer{k}": {"W": w, "b": b} for k, (w, b) in enumerate(_to_pairs(tree), 1)}


def _from_layers(values: Any, like: PyTree) -> PyTree:
    return from_pairs([(layer["W"], layer["b"]) for layer in values.values()], like)


def _attach_to_variables(variables: Any, params: PyTree, grads: PyTree) -> None:
    for variable, p, g in zip(variables, jax.tree.leaves(params), jax.tree.leaves(grads), strict=True):
        variable.grad = np.array(g)
        if np.shape(variable.data) == np.shape(p):
            np.copyto(variable.data, p)  # the optimizer may store its state under `id(array)`
        else:
            variable.data = np.array(p)


def _to_tensors(tree: PyTree) -> list[Any]:
    import torch

    return Parameters(torch.nn.Parameter(torch.tensor(np.asarray(leaf))) for leaf in jax.tree.leaves(tree))


def _to_plain_tensors(tree: PyTree) -> list[Any]:
    return [tensor.data for tensor in _to_tensors(tree)]


def no_gradients() -> Any:
    """Return a context that switches off PyTorch's differentiation; without effect if PyTorch is not imported."""
    return sys.modules["torch"].no_grad() if "torch" in sys.modules else contextlib.nullcontext()


def _from_tensors(tensors: Any, like: PyTree) -> PyTree:
    return _with_leaves(like, [tensor.detach().numpy().copy() for tensor in tensors])


def _attach_to_tensors(tensors: Any, params: PyTree, grads: PyTree) -> None:
    import torch

    for tensor, p, g in zip(tensors, jax.tree.leaves(params), jax.tree.leaves(grads), strict=True):
        tensor.data.copy_(torch.tensor(np.asarray(p)))
        # a NumPy gradient shares memory with tensor.grad, so in-place changes are visible in g
        tensor.grad = torch.as_tensor(g if isinstance(g, np.ndarray) else np.array(g))


def _to_module(tree: PyTree) -> Any:
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self) -> None:
            for i, leaf in enumerate(jax.tree.leaves(tree)):
                setattr(self, f"leaf{i:02}", nnx.Param(jnp.asarray(leaf)))

    return Model()


def _from_module(module: Any, like: PyTree) -> PyTree:
    count = len(jax.tree.leaves(like))
    return _with_leaves(like, [np.asarray(getattr(module, f"leaf{i:02}")[...]) for i in range(count)])


def _module_grads(tree: PyTree) -> Any:
    from flax import nnx

    return nnx.state(_to_module(tree), nnx.Param)


def _attach_to_module(module: Any, params: PyTree, grads: PyTree) -> None:
    for i, leaf in enumerate(jax.tree.leaves(params)):
        getattr(module, f"leaf{i:02}").set_value(jnp.asarray(leaf))


TREE = Layout("", lambda tree: tree, lambda values, like: values, lambda tree: tree)
DICT = Layout("a flat dict", _paths, _from_dict, _paths)
LIST = Layout("a list", jax.tree.leaves, lambda values, like: _with_leaves(like, list(values)), jax.tree.leaves)
PAIRS = Layout("a list of pairs [(w, b), …]", _to_pairs, from_pairs, _to_pairs)
LISTS = Layout("a list of lists [[w, b], …]", _to_lists, from_pairs, _to_lists)
LAYERS = Layout("{layer: {W, b}}", _to_layers, _from_layers, _to_layers)
NUMBERED = Layout(
    "{W1, b1, …} with gradients {dW1, db1, …}", *_named_pairs("W{k}", "b{k}"), _named_pairs("dW{k}", "db{k}")[0]
)
ARRAY = Layout("one array, all leaves concatenated", _to_array, _from_array, _to_array)
VARIABLES = Layout(
    "a list of objects with .data and .grad",
    lambda tree: Parameters(Variable(np.array(leaf)) for leaf in jax.tree.leaves(tree)),
    lambda values, like: _with_leaves(like, [np.asarray(value.data) for value in values]),
    jax.tree.leaves,
    _attach_to_variables,
    eager=True,
)
VARIABLE = Layout(  # for functions that take one parameter at a time
    "an object with .data and .grad",
    lambda leaf: Variable(np.array(leaf)),
    lambda value, like: np.asarray(value.data),
    lambda leaf: leaf,
    lambda variable, p, g: _attach_to_variables([variable], p, g),
    eager=True,
)
ASSIGNABLE = Layout(
    "a list of arrays with .assign",
    _to_assignable,
    lambda values, like: _with_leaves(like, [np.array(value) for value in values]),
    jax.tree.leaves,
    eager=True,
)
TENSORS = Layout(
    "a list of PyTorch parameters", _to_tensors, _from_tensors, _to_tensors, _attach_to_tensors, eager=True
)
TENSOR = Layout(
    "a PyTorch parameter",
    lambda leaf: _to_tensors(leaf)[0],
    lambda tensor, like: tensor.detach().numpy().copy(),
    lambda leaf: _to_tensors(leaf)[0],
    lambda tensor, p, g: _attach_to_tensors([tensor], p, g),
    eager=True,
)
MODULE = Layout("an nnx.Module", _to_module, _from_module, _module_grads, _attach_to_module, eager=True)
PLAIN_TENSORS = Layout(
    "a list of tensors",
    _to_plain_tensors,
    _from_tensors,
    _to_plain_tensors,
    attach=lambda *_: None,
    eager=True,
)
LAYOUTS = (TREE, DICT, LIST, PAIRS, LISTS, LAYERS, NUMBERED, ARRAY, ASSIGNABLE, PLAIN_TENSORS)
HOLDING = (VARIABLES, TENSORS)  # parameters that hold their gradients
ONE_HOLDING = (VARIABLE, TENSOR)  # one parameter that holds its gradient
