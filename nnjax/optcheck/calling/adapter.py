"""Define the common interface to which all kinds of optimizers are adapted."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.types import PyTree

SCALE = 3.0  # scale of the parameters in trial calls, larger than the scale of updates


class Adapter(NamedTuple):
    """An optimizer adapted to one interface. `step` is a pure function unless the optimizer is eager."""

    name: str
    kind: str
    init: Callable[[PyTree], Any]  # params -> state
    step: Callable[[Any, PyTree, PyTree], tuple[PyTree, Any]]  # (state, params, grads) -> (updates, state)
    params_of: Callable[[Any], PyTree] | None = None  # state -> parameters; None if the state does not contain them
    eager: bool = False  # True for NumPy, PyTorch, and objects that keep state
    called: str = ""  # description of the call for the report; "" for standard kinds
    ndim: int = 0  # minimum number of dimensions of the leaves that the optimizer accepts
    array: Callable[..., Any] = jnp.array  # constructor of the arrays that are passed to the optimizer

    @property
    def pure(self) -> bool:
        """Return True if jit and scan can transform `step`."""
        return not self.eager


def difference(new: PyTree, old: PyTree) -> PyTree:
    """Return the new parameters minus the old ones."""
    return jax.tree.map(lambda a, b: a - b, new, old)


def example_tree(array: Callable[..., Any], seed: int, *, ndim: int = 0) -> PyTree:
    """Return a small tree of random numbers from N(0, 1), whose leaves have at least `ndim` dimensions."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return array(np.float32(rng.normal(size=shape)))

    if ndim == 2:
        return {"layer": {"v": draw(3, 3), "w": draw(2, 3)}}
    return {"layer": {"b": draw(3), "w": draw(2, 3)}, "temperature": draw(*(1,) * ndim)}
