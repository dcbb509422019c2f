"""Infer the role of an argument from its name: parameters, gradients, state, counter and others."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

PARAMS = (
    *("params", "parameters", "param", "parameter", "p", "theta", "w", "weights", "weight", "x", "xs", "model", "net"),
    *("variables", "vars", "var", "values", "x0", "x_init", "policy", "parameter_list", "trainables"),
    *("trainable_variables", "var_list", "trainable_params", "trainable_weights", "named_params", "named_parameters"),
    *(
        "model_params",
        "model_parameters",
        "net_params",
        "network_params",
        "init_params",
        "initial_params",
        "old_params",
    ),
    *("params_dict", "param_dict", "params_list", "flat_params", "all_params", "thetas", "ws"),
    "param_list",
)
GRADS = (
    *("grads", "gradients", "grad", "gradient", "g", "gs", "dw", "updates", "derivatives", "globalg", "grad_wrt_w"),
    *("param_grad", "delta", "deltas"),
)
STATE = (
    *("state", "s", "opt_state", "states", "config", "cache", "optimizer_state", "model_state", "memory", "velocity"),
    *("slots", "buffers", "moments", "carry", "velocities"),
)
COUNT = ("t", "step", "i", "it", "iter", "iteration", "iterations", "epoch", "k", "n", "count", "time", "time_step")
LEAF = ("param_name", "name", "key", "layer_name")  # name under which the optimizer stores the state of a leaf
LAYER, LAYERS = ("layer", "lyr"), ("layers", "trainable_layers")  # objects that hold weights and gradients
PAIRS = ("grads_and_vars", "gradients_and_variables", "grads_vars")
OBJECTIVE = ("loss_fn", "loss_function", "value_fn", "objective", "f", "fn", "func", "obj", "fun", "obj_fn", "cost_fn")
GRADIENT = ("grad_fn", "gradient_fn", "loss_grad", "grad_function")  # functions that return gradients
HESSIAN = (  # diagonal of the Hessian
    *("hessian", "hess", "hessian_diag", "hessian_diagonal", "hess_diag", "diag_hessian", "diag_hess", "hessians"),
    *("diagonal_hessian", "hutchinson", "hvp_diag"),
)
VALUE = ("loss", "value", "loss_value", "cost")  # value of the objective
# arguments of functions that need the loss function or data
LOSS = ("closure", "batch", "data", "y", "targets", "xtrain", "x_train", "x_batch", "inputs")
NUMBERS = (
    *("learning_rate", "lr", "step_size", "stepsize", "eta", "rate", "alpha", "learning_rate_init", "lrate"),
    *("beta", "beta1", "beta2", "beta_1", "beta_2", "b1", "b2", "mu", "momentum", "gamma", "rho", "decay", "epsilon"),
    *("eps", "weight_decay", "wd", "batch_size", "betas", "decay_rate", "hyperparams", "hparams", "hps"),
)
SYNONYMS = (  # names of the same hyper-parameter in different libraries; the first is optax's
    ("learning_rate", "lr", "alpha", "eta", "step_size", "stepsize", "rate", "learning_rate_init", "lrate"),
    ("b1", "beta1", "beta_1", "beta"),
    ("b2", "beta2", "beta_2", "decay2"),
    ("eps", "epsilon"),
    ("momentum", "mu", "mass", "beta", "gamma"),
    ("decay", "alpha", "rho", "gamma", "decay_rate", "b2"),
    ("weight_decay", "wd", "decay", "lambd", "weight_decay_rate"),
)


AVERAGES = ("avg", "average", "ema", "mean", "sum", "accum", "buffer", "history", "prev", "old", "sq", "sqr")
BOUNDS = ("clip", "clipping", "norm", "max", "scale", "threshold", "bound")
COUNTERS = ("t", "step", "i", "it", "iter", "iteration", "time", "time_step", "timestep", "count")  # with defaults
BUFFERS = (  # names of optional arguments that are states if there are several
    *("m", "v", "s", "u", "r", "b", "h", "z", "mt", "vt", "m_t", "v_t", "vel", "mom", "avg", "acc", "accumulator"),
    *("exp_avg", "exp_avg_sq", "square_avg", "m1", "m2", "first_moment", "second_moment", "prev_grad"),
)
MOMENTS = ("momentum", "velocity", "cache")  # names of required arguments that are a state if there is no other
BOTH_MOMENTS = {"mu", "nu"}  # names of both moments in optax; μ alone is a number


class Argument(NamedTuple):
    """An argument of a function, with the role that its name suggests."""

    name: str
    role: str  # "params", "grads", "state", "count", "leaf", "objective", … (see `role_of`), or "" if unknown
    required: bool
    keyword: bool  # True if it must be passed by keyword


def role_of(name: str) -> str:
    """Return the role that a name suggests, or "" if it suggests none."""
    name = name.lower().strip("_")
    words = name.split("_")
    if name not in GRADS and name.startswith(("grad", "sqr")) and set(AVERAGES) & set(words):
        return "state"  # such as grad_avg, the average of the gradients in fastai
    if len(words) > 1 and words[0] in ("grad", "gradient") and words[1] in BOUNDS:
        return "number"  # such as grad_clip
    roles = {"params": PARAMS, "grads": GRADS, "state": STATE, "count": COUNT, "leaf": LEAF, "pairs": PAIRS}
    roles |= {"loss": LOSS, "objective": OBJECTIVE, "gradient": GRADIENT, "value": VALUE, "number": NUMBERS}
    roles |= {"hessian": HESSIAN}
    roles |= {"layer": LAYER, "layers": LAYERS}
    for role, names in roles.items():
        if name in names:
            return role
    if name.startswith(("grad", "d_")) or name.endswith(("grad", "grads", "gradient", "gradients")):
        return "grads"
    if name.startswith("d") and name[1:] in PARAMS:
        return "grads"
    return "state" if name.endswith("state") else ""


def arguments_of(function: Callable[..., Any]) -> list[Argument] | None:
    """Return the arguments of a function that need values, or None if its signature does not list them.

    Arguments with defaults are omitted, because they are hyper-parameters. Exceptions are arguments with the default
    None whose names suggest a state, gradients or parameters, and counters such as t=1. If no argument can be the
    state, a single unknown name with the default None is the state, as in `step(w, dw, cfg=None)`, or several such
    names in `BUFFERS`.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    arguments, unknown = [], []
    skipped = False  # after an omitted argument, values must be passed by keyword
    for p in parameters:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            if p.kind is p.VAR_POSITIONAL:
                return None
            continue
        required, keyword = p.default is p.empty, p.kind is p.KEYWORD_ONLY
        role = role_of(p.name)
        counts = p.name in COUNTERS and type(p.default) is int and p.default in (0, 1)
        if required or counts or (role in ("state", "grads", "params") and not keyword and p.default is None):
            arguments.append(Argument(p.name, role, required, keyword or skipped))
        elif role == "" and p.default is None and not keyword:
            unknown.append(Argument(p.name, "state", required, keyword or skipped))
            skipped = True
        else:
            skipped = True
    roles = [argument.role for argument in arguments]
    if {"params", "grads"} <= set(roles) and not {"state", ""} & set(roles):
        arguments = [a._replace(role="state") if a.name in MOMENTS else a for a in arguments]
    if {argument.name for argument in arguments if argument.required} >= BOTH_MOMENTS:
        arguments = [a._replace(role="state") if a.name in BOTH_MOMENTS else a for a in arguments]
    has_state = any(argument.role in ("state", "") for argument in arguments)
    if len(unknown) > 1:
        unknown = [argument for argument in unknown if argument.name in BUFFERS]
    add = bool(unknown) and not has_state and sum(argument.required for argument in arguments) > 1
    return arguments + (unknown if add else [])


def signature_text(name: str, arguments: list[Argument] | None) -> str:
    """Format a call, such as "step(params, grads)"."""
    return f"{name}({', '.join(argument.name for argument in arguments or ())})"


def rename(hparams: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Rename hyper-parameters to the names of a factory's arguments.

    Args:
      hparams: values, keyed by optax's names.
      names: the names of the factory's arguments.
    """
    renamed = {}
    for name, value in hparams.items():
        synonyms = next((group for group in SYNONYMS if group[0] == name), (name,))
        renamed[next((synonym for synonym in synonyms if synonym in names), name)] = value
    return renamed
