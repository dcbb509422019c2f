"""Layouts of models: objects that hold parameters and gradients in dicts, in lists or in layers."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nnjax import checks
from nnjax.optcheck.calling.layer_objects import ATTRIBUTES, Layer
from nnjax.optcheck.calling.layouts import Layout, from_pairs, layer_pairs
from nnjax.types import PyTree

NAMES = (("params", "grads"), ("parameters", "gradients"), ("weights", "gradients"))  # attributes of models


class Model:
    """A model with parameters and gradients as attributes."""


class LayeredModel(list[Any]):
    """A list of layers, which is also its attribute `layers`."""

    @property
    def layers(self) -> "LayeredModel":
        """Return the list itself."""
        return self


class MethodModel:
    """A model whose methods return the lists of its parameters and gradients."""

    def __init__(self, params: list[np.ndarray], grads: list[np.ndarray]) -> None:
        self.arrays = (params, grads)

    def parameters(self) -> list[np.ndarray]:
        """Return the list of parameters."""
        return self.arrays[0]

    def gradients(self) -> list[np.ndarray]:
        """Return the list of gradients."""
        return self.arrays[1]

    def parameters_and_gradients(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return a list of pairs (parameter, gradient)."""
        return list(zip(*self.arrays, strict=True))

    params = get_params = get_parameters = parameters
    grads = get_grads = get_gradients = gradients
    params_and_grads = parameters_and_gradients


def _named(tree: PyTree) -> dict[Any, np.ndarray]:
    return {checks.path_name(path): np.array(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _listed(tree: PyTree) -> list[np.ndarray]:
    return [np.array(leaf) for leaf in jax.tree.leaves(tree)]


def _model(params: str, grads: str, collect: Callable[[PyTree], Any]) -> Layout:
    """Return the layout of a model with two dicts or lists, which `collect` makes from a tree."""

    def keys(values: Any) -> Any:
        return list(values) if isinstance(values, dict) else range(len(values))

    def pack(tree: PyTree) -> Any:
        model = Model()
        setattr(model, params, collect(tree))
        setattr(model, grads, collect(jax.tree.map(np.zeros_like, tree)))
        return model

    def unpack(model: Any, like: PyTree) -> PyTree:
        values = getattr(model, params)
        return jax.tree.unflatten(jax.tree.structure(like), [np.array(values[key]) for key in keys(collect(like))])

    def attach(model: Any, new: PyTree, new_grads: PyTree) -> None:
        for attribute, tree in ((params, new), (grads, new_grads)):
            values = collect(tree)
            for key in keys(values):
                _write(getattr(model, attribute), key, values[key])

    kind = "dicts" if collect is _named else "lists"
    return Layout(f"a model with the {kind} {params} and {grads}", pack, unpack, collect, attach, eager=True)


def _with_methods() -> Layout:
    """Return the layout of a model whose methods return lists of parameters and gradients."""

    def attach(model: MethodModel, new: PyTree, new_grads: PyTree) -> None:
        for values, tree in zip(model.arrays, (new, new_grads), strict=True):
            for i, leaf in enumerate(jax.tree.leaves(tree)):
                _write(values, i, np.array(leaf))

    return Layout(
        "a model with the methods parameters() and gradients()",
        lambda tree: MethodModel(_listed(tree), _listed(jax.tree.map(np.zeros_like, tree))),
        lambda model, like: jax.tree.unflatten(jax.tree.structure(like), [np.array(leaf) for leaf in model.arrays[0]]),
        _listed,
        attach,
        eager=True,
    )


def _write(values: Any, key: Any, new: np.ndarray) -> None:
    """Write an array into a dict or list, in place because the optimizer may store its state under `id(array)`."""
    old = values.get(key) if isinstance(values, dict) else values[key]
    if isinstance(old, np.ndarray) and old.shape == new.shape:
        np.copyto(old, new)
    else:
        values[key] = new


def _layered(attributes: tuple[str, str, str, str]) -> Layout:
    """Return the layout of a model with layers that have weights, biases and their gradients as attributes."""

    def write(layers: Any, params: PyTree, grads: PyTree) -> None:
        leaves, slopes = jax.tree.leaves(params), jax.tree.leaves(grads)
        for layer, (i, j) in zip(layers, layer_pairs(params), strict=True):
            for attribute, value in zip(attributes, (leaves[i], leaves[j], slopes[i], slopes[j]), strict=True):
                _write(vars(layer), attribute, np.array(value))

    def pack(tree: PyTree) -> Any:
        layers = LayeredModel(Layer() for _ in layer_pairs(tree))
        write(layers, tree, jax.tree.map(np.zeros_like, tree))
        return layers

    def unpack(layers: Any, like: PyTree) -> PyTree:
        pairs = [tuple(np.array(getattr(layer, name)) for name in attributes[:2]) for layer in layers]
        return from_pairs(pairs, like)

    gradients: Callable[[PyTree], Any] = jax.tree.leaves
    return Layout(f"a model whose layers have {', '.join(attributes)}", pack, unpack, gradients, write, eager=True)


MODELS = (
    *(_model(*names, collect) for collect in (_named, _listed) for names in NAMES),
    _with_methods(),
    *(_layered(attributes) for attributes in ATTRIBUTES),
)
