"""Adapt optimizers that update layer objects with weights, biases and their gradients: `update_params(layer)`."""

import copy
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nnjax.optcheck.calling.adapter import Adapter, difference, example_tree
from nnjax.optcheck.calling.layouts import from_pairs, layer_pairs
from nnjax.optcheck.calling.names import arguments_of
from nnjax.optcheck.trace.deadline import TimeLimitError
from nnjax.types import PyTree

ATTRIBUTES = (  # names of weights, biases and their gradients in books and courses
    ("weights", "biases", "dweights", "dbiases"),
    ("weights", "bias", "dweights", "dbias"),
    ("W", "b", "dW", "db"),
    ("w", "b", "dw", "db"),
    ("weights", "bias", "grad_weights", "grad_bias"),
    ("weights", "biases", "weights_gradient", "biases_gradient"),
)
BEFORE, AFTER = ("pre_update_params", "pre_update"), ("post_update_params", "post_update")  # hooks of a step


class Layer:
    """A layer with weights, biases and their gradients as attributes. Optimizers may add moments to it."""


def takes_layers(method: Callable[..., Any]) -> str:
    """Return "layer" or "layers" if this is the role of a method's only required argument, else ""."""
    required = [argument for argument in arguments_of(method) or () if argument.required]
    return required[0].role if len(required) == 1 and required[0].role in ("layer", "layers") else ""


def hold_layers(optimizer: Any, method: str, name: str) -> Adapter | None:
    """Return the adapter of an object whose method updates layers, or None if no usual attribute names work.

    Args:
      optimizer: the object; each run uses a copy.
      method: the name of its method, which has one argument, `layer` or `layers`.
      name: its name for the report.
    """
    for attributes in ATTRIBUTES:
        adapter = _adapter(optimizer, method, name, attributes)
        params, *grads = (example_tree(np.array, seed) for seed in range(3))
        try:
            state = adapter.init(params)
            with np.errstate(all="ignore"):
                for grad in grads:
                    updates, state = adapter.step(state, params, grad)
        except TimeLimitError:
            raise
        except Exception:  # its layers have different attributes
            continue
        if any(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(updates)):
            return adapter
    return None


def _adapter(optimizer: Any, method: str, name: str, attributes: tuple[str, ...]) -> Adapter:
    kind = takes_layers(getattr(optimizer, method))

    def init(params: PyTree) -> Any:
        return copy.deepcopy(optimizer), [Layer() for _ in layer_pairs(params)]

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        instance, layers = carry
        leaves, slopes = jax.tree.leaves(params), jax.tree.leaves(grads)
        for layer, (i, j) in zip(layers, layer_pairs(params), strict=True):
            for attribute, value in zip(attributes, (leaves[i], leaves[j], slopes[i], slopes[j]), strict=True):
                setattr(layer, attribute, np.array(value))
        _call(instance, BEFORE)
        update = getattr(instance, method)
        if kind == "layers":
            update(layers)
        else:
            for layer in layers:
                update(layer)
        _call(instance, AFTER)
        pairs = [tuple(np.asarray(getattr(layer, attribute)) for attribute in attributes[:2]) for layer in layers]
        return difference(from_pairs(pairs, params), params), (instance, layers)

    called = f"{name}.{method}({kind}), on layers with {', '.join(attributes)}"
    if used := [hook for hook in (*BEFORE, *AFTER) if hasattr(optimizer, hook)]:
        called += f"; {' and '.join(used)} around each step"
    return Adapter(name, "object", init, step, eager=True, called=called, array=np.array)


def _call(instance: Any, hooks: tuple[str, ...]) -> None:
    for hook in hooks:
        if hasattr(instance, hook):
            getattr(instance, hook)()
