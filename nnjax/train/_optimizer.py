"""Call optimizers, and reject those that need arguments that a run cannot pass."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import optax
from jax import Array

from nnjax import checks
from nnjax.types import Optimizer, OptState, Params, PyTree


def optimizer_update(
    optimizer: Optimizer, grads: Params, opt_state: OptState, params: Params, *, loss: Array
) -> tuple[Params, OptState]:
    """Return the updates of the parameters and the optimizer's new state."""
    # jax.grad returns the conjugate of the direction of steepest ascent
    grads = jax.tree.map(lambda g: g.conj() if jnp.iscomplexobj(g) else g, grads)
    update = optax.with_extra_args_support(optimizer).update
    try:
        return update(grads, opt_state, params, value=loss)
    except TypeError as error:
        if "unexpected keyword argument 'value'" not in str(error):
            raise
    return update(grads, opt_state, params)  # optax.contrib.sam takes extra arguments, but not value=


def check_optimizer(optimizer: Optimizer, opt_state: OptState, params: Params) -> None:
    """Check that the optimizer works with the arguments that a run passes, by tracing one call.

    Raises:
      ValueError: if the optimizer does a line search, or if the call fails; the message names the optimizer's state.
    """
    _refuse_line_search(opt_state)
    with _explain_failure(opt_state):
        loss = jax.ShapeDtypeStruct((), jnp.float32)

        def update(params: Params, opt_state: OptState, loss: Array) -> tuple[Params, OptState]:
            return optimizer_update(optimizer, params, opt_state, params, loss=loss)

        updates, _ = jax.eval_shape(update, params, opt_state, loss)
        _check_updates(updates, params)


@contextmanager
def _explain_failure(opt_state: OptState) -> Iterator[None]:
    """Convert any error of an optimizer into a ValueError that names its state and the call that failed."""
    try:
        yield
    except Exception as error:
        nodes = [opt_state]
        while nodes and not hasattr(nodes[0], "_fields"):  # the state of a chain is a tuple of states
            nodes = [part for node in nodes for part in (node if isinstance(node, tuple) else [])]
        names = [type(node).__name__ for node in nodes if hasattr(node, "_fields")] or [type(opt_state).__name__]
        state = ", ".join(names)
        raise ValueError(
            f"Run: the optimizer with the state {state} failed on the call update(gradients, state, "
            f"parameters, value=loss): {type(error).__name__}: {error}; an update rule is update(gradients, state, "
            "parameters) -> (updates, state); for an optimizer that needs other parameters or arguments (lookahead, "
            "sam with opaque_mode=True, sophia, dpsgd), write the loop by hand"
        ) from error


def _check_updates(updates: Params, params: Params) -> None:
    """Check that updates have the shapes of the parameters; `optax.apply_updates` would broadcast other shapes."""
    if jax.tree.map(jnp.shape, updates) != jax.tree.map(jnp.shape, params):
        raise ValueError(
            f"updates must have the shapes of the parameters, {checks.shapes(params)}, got {checks.shapes(updates)}"
        )


def _refuse_line_search(opt_state: PyTree) -> None:
    """Raise ValueError for a line search, which evaluates the loss several times in a step."""
    searches = [
        type(node).__name__
        for node in jax.tree.leaves(opt_state, is_leaf=lambda node: "Linesearch" in type(node).__name__)
        if "Linesearch" in type(node).__name__
    ]
    if searches:
        raise ValueError(
            f"Run: the optimizer does a line search ({searches[0]}), which needs the loss as a function; "
            "write the loop by hand, or use lbfgs with linesearch=None and a learning rate"
        )
