"""Define a small objective with the scripted gradients, for optimizers that need a loss function or a closure.

f(θ) = 1 + ⟨g, θ - θ_k⟩ + ½ h ‖θ - θ_k‖². At the parameters θ_k of a step, f has the gradient g and the Hessian h I.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.optcheck.rules.named.sophia import CURVATURE  # h in the formula above
from nnjax.types import PyTree

VALUE = 1.0  # f(θ_k)
OF_OBJECTIVE = ("objective", "gradient", "hessian", "value")  # roles of arguments that `of_objective` can provide


def objective(params: PyTree, grads: PyTree, unpack: Callable[[Any], PyTree] = lambda values: values) -> Any:
    """Return f for parameters in the layout that `unpack` converts to a tree.

    Args:
      params: the parameters θ_k.
      grads: the gradient g at θ_k.
      unpack: function that converts the optimizer's parameters to a tree like `params`.
    """

    def f(params_or_values: Any, *_: Any) -> Any:
        xs = jax.tree.leaves(unpack(params_or_values))
        xp = np if all(isinstance(x, (np.ndarray, float)) for x in xs) else jnp
        total = VALUE
        for x, p, g in zip(xs, jax.tree.leaves(params), jax.tree.leaves(grads), strict=True):
            total = total + xp.sum(g * (x - p)) + 0.5 * CURVATURE * xp.sum((x - p) ** 2)
        return total

    return f


def gradient(params: PyTree, grads: PyTree, layout: Any) -> Any:
    """Return the gradient function of f, for parameters and gradients in a layout."""

    def df(values: Any, *_: Any) -> Any:
        tree = layout.unpack(values, params)
        return layout.pack_grads(jax.tree.map(lambda x, p, g: g + CURVATURE * (x - p), tree, params, grads))

    return df


def of_objective(role: str, params: PyTree, grads: PyTree, layout: Any) -> Any:
    """Return what `role` names: f ("objective"), its gradient function, its value, or the diagonal of its Hessian."""
    if role == "objective":
        return objective(params, grads, lambda values: layout.unpack(values, params))
    if role == "gradient":
        return gradient(params, grads, layout)
    if role == "hessian":
        return layout.pack_grads(jax.tree.map(lambda p: 0 * p + CURVATURE, params))
    return VALUE


def closure(tensors: Any, params: PyTree, grads: PyTree) -> Callable[[], Any]:
    """Return a closure for PyTorch that sets `.grad` to the gradients of f at the tensors' values, and returns f."""
    import torch

    starts = [torch.tensor(np.asarray(leaf)) for leaf in jax.tree.leaves(params)]
    slopes = [torch.tensor(np.asarray(leaf)) for leaf in jax.tree.leaves(grads)]

    def evaluate() -> Any:
        total = torch.tensor(VALUE)
        for tensor, start, slope in zip(tensors, starts, slopes, strict=True):
            change = tensor.data - start
            total = total + (slope * change).sum() + 0.5 * CURVATURE * (change**2).sum()
            tensor.grad = slope + CURVATURE * change
        return total

    return evaluate
