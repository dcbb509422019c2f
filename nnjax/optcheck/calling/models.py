"""Layouts of models: objects that hold parameters and gradients in dicts, or in layers."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nnjax import checks
from nnjax.optcheck.calling.layer_objects import ATTRIBUTES, Layer
from nnjax.optcheck.calling.layouts import Layout, from_pairs, layer_pairs
from nnjax.types import PyTree

DICTS = (("params", "grads"), ("parameters", "gradients"), ("weights", "gradients"))  # attributes of models


class Model:
    """A model with parameters and gradients as attributes."""


class LayeredModel(list[Any]):
    """A list of layers, which is also its attribute `layers`."""

    @property
    def layers(self) -> "LayeredModel":
        """Return the list itself."""
        return self


def _named(tree: PyTree) -> dict[str, np.ndarray]:
    return {checks.path_name(path): np.array(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _model(params: str, grads: str) -> Layout:
    """Return the layout of a model with two dicts."""

    def pack(tree: PyTree) -> Any:
        model = Model()
        setattr(model, params, _named(tree))
        setattr(model, grads, _named(jax.tree.map(np.zeros_like, tree)))
        return model

    def unpack(model: Any, like: PyTree) -> PyTree:
        values = getattr(model, params)
        return jax.tree.unflatten(jax.tree.structure(like), [np.array(values[name]) for name in _named(like)])

    def attach(model: Any, new: PyTree, new_grads: PyTree) -> None:
        for attribute, tree in ((params, new), (grads, new_grads)):
            for name, value in _named(tree).items():
                _write(getattr(model, attribute), name, value)

    return Layout(f"a model with the dicts {params} and {grads}", pack, unpack, _named, attach, eager=True)


def _write(values: dict[str, Any], name: str, new: np.ndarray) -> None:
    """Write an array into a dict, in place because the optimizer may store its state under `id(array)`."""
    old = values.get(name)
    if isinstance(old, np.ndarray) and old.shape == new.shape:
        np.copyto(old, new)
    else:
        values[name] = new


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


MODELS = (*(_model(*names) for names in DICTS), *(_layered(attributes) for attributes in ATTRIBUTES))
