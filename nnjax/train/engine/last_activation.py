"""Find networks that end in a softmax or sigmoid although their loss applies this function, too."""

from typing import Any

from nnjax import losses
from nnjax.types import Loss

OF_LOGITS = (
    (losses.cross_entropy, "softmax"),
    (losses.focal, "softmax"),
    (losses.kl_divergence, "softmax"),
    (losses.binary_cross_entropy, "sigmoid"),
)
UNCHANGED = ("name", "convert_element_type", "broadcast_in_dim", "reshape")  # operations that change no values


def activation_of(loss: Loss) -> str | None:
    """Return the name of the activation that a loss applies to logits, or None for other losses."""
    function = getattr(loss, "func", loss)  # the function inside a functools.partial
    return next((activation for known, activation in OF_LOGITS if known is function), None)


def ends_in(activation: str, jaxpr: Any) -> bool:
    """Return True if the first output of a program is the result of the activation.

    Args:
      activation: "softmax", which is exp(x) / Σ exp(x), or "sigmoid".
      jaxpr: the program.
    """
    equations = {variable: equation for equation in jaxpr.eqns for variable in equation.outvars}

    def equation_of(variable: Any) -> Any:
        """Return the equation that computes a variable, or None for arguments and constants."""
        equation = None if hasattr(variable, "val") else equations.get(variable)
        if equation is not None and equation.primitive.name in UNCHANGED:
            return equation_of(equation.invars[0])
        return equation

    def is_result(variable: Any, *names: str) -> bool:
        """Return True if a variable is the result of the named operations, listed from the last to the first."""
        equation = equation_of(variable)
        matches = equation is not None and equation.primitive.name == names[0]
        return matches and (len(names) == 1 or is_result(equation.invars[0], *names[1:]))

    (output, *_) = jaxpr.outvars
    if activation == "sigmoid":
        return is_result(output, "logistic")
    if not is_result(output, "div"):
        return False
    power, total = equation_of(output).invars
    return is_result(power, "exp") and is_result(total, "reduce_sum", "exp")
