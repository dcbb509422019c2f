"""Read the rule of an optax or PyTorch optimizer from its arguments.

The result is only a guess: it is used if it reproduces the optimizer's updates. Without it, a search would have to find
all numbers that are not the defaults.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from nnjax.optcheck.rules.library_rules import (
    ADADELTA,
    ADAGRAD,
    ADAM,
    ADAM_HAT,
    ADAMAX,
    LION,
    NOVOGRAD,
    RMSPROP,
    SGD,
    SIGN,
)
from nnjax.optcheck.rules.update_rule import Formula, HyperParams, UpdateRule

BELIEF = ADAM._replace(second="belief", eps="in state")
B1_B2_EPS = {"b1": "b1", "b2": "b2", "eps": "eps"}
# optax function: its rule, and the hyper-parameters that its arguments set
OPTAX: dict[str, tuple[UpdateRule, dict[str, str]]] = {
    "scale_by_adam": (ADAM, B1_B2_EPS | {"eps_root": "eps_root"}),
    "scale_by_amsgrad": (ADAM._replace(maximum="corrected"), B1_B2_EPS | {"eps_root": "eps_root"}),
    "scale_by_belief": (BELIEF, B1_B2_EPS | {"eps_root": "eps_state"}),
    "scale_by_yogi": (ADAM._replace(second="yogi"), B1_B2_EPS),
    "scale_by_radam": (ADAM._replace(rectification="above 5"), {"b1": "b1", "b2": "b2"}),
    "scale_by_adamax": (ADAMAX, B1_B2_EPS),
    "scale_by_rms": (RMSPROP, {"decay": "b2", "eps": "eps"}),
    "scale_by_stddev": (RMSPROP._replace(second="centered"), {"decay": "b2", "eps": "eps"}),
    "scale_by_rss": (ADAGRAD, {"eps": "eps"}),
    "scale_by_adadelta": (ADADELTA, {"rho": "b2", "eps": "eps"}),
    "scale_by_lion": (LION._replace(decay="none"), {"b1": "b1", "b2": "b2"}),
    "scale_by_novograd": (NOVOGRAD, {}),
    "scale_by_sign": (SIGN, {}),
    "ema": (UpdateRule(first="ema"), {"decay": "b1"}),
}
DEFAULTS = {  # numbers that the update function does not hold
    "scale_by_yogi": {"first_start": 1e-6, "second_start": 1e-6},
    "scale_by_novograd": {"b2": 0.25, "eps": 1e-6},
    "scale_by_rss": {"second_start": 0.1},
}
WRAPPERS = {"with_extra_args_support": "tx", "masked": "inner"}  # the variable that holds the wrapped optimizer
CLIPS = {"clip": ("value", "max_delta"), "clip_by_global_norm": ("global norm", "max_norm")}
EPS = {"eps": "eps"}  # for PyTorch, whose betas are read in `_torch_formula`
TORCH: dict[str, tuple[UpdateRule, dict[str, str]]] = {
    "SGD": (SGD, {"momentum": "momentum", "dampening": "dampening"}),
    "Adam": (ADAM, EPS),
    "AdamW": (ADAM, EPS),
    "Adamax": (ADAMAX, EPS),
    "NAdam": (ADAM._replace(numerator="nadam", product_storage="float32"), EPS | {"momentum_decay": "momentum_decay"}),
    "RAdam": (ADAM_HAT._replace(rectification="above 5"), EPS),
    "RMSprop": (RMSPROP._replace(eps="outside"), {"alpha": "b2", "eps": "eps", "momentum": "momentum"}),
    "Adagrad": (ADAGRAD._replace(eps="outside"), {"eps": "eps", "initial_accumulator_value": "second_start"}),
    "Adadelta": (ADADELTA, {"rho": "b2", "eps": "eps"}),
}


def formula_of(optimizer: Any) -> Formula | None:
    """Return the formula of an optax or PyTorch optimizer with known parts, or None for any other object.

    Args:
      optimizer: an optax optimizer, or a PyTorch class or partial that takes a list of parameters.
    """
    if (update := getattr(optimizer, "update", None)) is not None and hasattr(optimizer, "init"):
        return _optax_formula(list(_parts(update)))
    function = optimizer.func if isinstance(optimizer, functools.partial) else optimizer
    if inspect.isclass(function) and function.__module__.startswith("torch.optim") and function.__name__ in TORCH:
        import torch

        created = optimizer([torch.nn.Parameter(torch.zeros(1))])
        return _torch_formula(function.__name__, created.defaults)
    return None


def _parts(update: Callable[..., Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the arguments of each optax function of which an optimizer is composed, in order."""
    code, cells = getattr(update, "__code__", None), getattr(update, "__closure__", None)
    values = {} if code is None else {n: c.cell_contents for n, c in zip(code.co_freevars, cells or (), strict=False)}
    is_optax = getattr(update, "__module__", "").startswith("optax.")
    name = update.__qualname__.partition(".")[0] if is_optax else ""
    if name == "chain":
        for part in values.get("update_fns", ()):
            yield from _parts(part)
    elif name in WRAPPERS and WRAPPERS[name] in values:
        yield from _parts(values[WRAPPERS[name]].update)
    else:
        yield name, values


def _optax_formula(parts: list[tuple[str, dict[str, Any]]]) -> Formula | None:
    """Compose a formula from the parts of an optax optimizer, or return None if a part is unknown or out of order."""
    rule, hyper = SGD, HyperParams(learning_rate=1.0)
    core, scaled = False, False  # True after a part that transforms the gradient, or scales the step
    for name, values in parts:
        if name in OPTAX and not (core or scaled):
            rule, hyper = _with_core(rule, hyper, name, values)
            core = True
        elif name == "trace" and rule.velocity == "none":
            nesterov = "standard" if values["nesterov"] else "none"
            position = "inside" if scaled else "outside"
            rule = rule._replace(velocity="trace", rate_position=position, nesterov=nesterov)
            hyper, core = hyper._replace(momentum=float(values["decay"])), True
        elif name == "add_decayed_weights" and rule.decay == "none" and not scaled:
            weight = float(values["weight_decay"])
            rule = rule._replace(decay="none" if weight == 0 else "decoupled" if core else "l2")
            hyper = hyper._replace(weight_decay=weight)
        elif name == "scale_by_trust_ratio" and rule.trust == "none" and not scaled:
            rule = rule._replace(trust="lamb" if core else "lars")
            hyper = hyper._replace(trust=float(values["trust_coefficient"]))
        elif name in CLIPS and rule.clip == "none" and not scaled:
            clip, argument = CLIPS[name]
            rule = rule._replace(clip=f"step {clip}" if core else clip)
            hyper = hyper._replace(clip=float(values[argument]))
        elif name == "centralize" and rule.clip == "none" and not core:
            rule = rule._replace(centre="rows")
        elif name == "scale" and not scaled:
            hyper, scaled = hyper._replace(learning_rate=float(values["step_size"])), True
        elif name != "identity":
            return None
    direction = "up" if hyper.learning_rate > 0 else "down"
    return Formula(rule._replace(direction=direction), hyper._replace(learning_rate=abs(hyper.learning_rate)))


def _with_core(
    rule: UpdateRule, hyper: HyperParams, name: str, values: dict[str, Any]
) -> tuple[UpdateRule, HyperParams]:
    """Combine what precedes a `scale_by_…` function, such as clipping, with the rule of this function."""
    core, arguments = OPTAX[name]
    if values.get("nesterov"):
        core = core._replace(numerator="nadam")
    if not values.get("eps_in_sqrt", True):
        core = core._replace(eps="outside")
    if values.get("bias_correction"):
        core = core._replace(second_correction="t")
    if values.get("debias"):
        core = core._replace(first_correction="t")
    if not values.get("bias_correction_mu", True):
        core = core._replace(first_correction="none")
    before = {place: getattr(rule, place) for place in ("clip", "centre", "decay")}
    numbers = {field: float(values[argument]) for argument, field in arguments.items() if argument in values}
    return core._replace(**before), hyper._replace(**(DEFAULTS.get(name, {}) | numbers))


def _torch_formula(name: str, values: dict[str, Any]) -> Formula:
    """Return the formula of a PyTorch optimizer with the default options of its groups."""
    rule, arguments = TORCH[name]
    numbers = {field: float(values[argument]) for argument, field in arguments.items()}
    if "betas" in values:
        numbers["b1"], numbers["b2"] = values["betas"]
    if values.get("amsgrad"):
        rule = rule._replace(maximum="raw")
    if values.get("centered"):
        rule = rule._replace(second="centered")
    if values.get("momentum"):
        nesterov = "standard" if values.get("nesterov") else "none"
        rule = rule._replace(velocity="dampened" if values.get("dampening") else "trace", nesterov=nesterov)
    if values.get("lr_decay"):
        rule, numbers = rule._replace(schedule="inverse time"), numbers | {"rate_decay": values["lr_decay"]}
    if values.get("weight_decay"):
        decoupled = name == "AdamW" or values.get("decoupled_weight_decay")
        l2 = "l2 wrong sign" if values.get("maximize") else "l2"  # only the gradient changes its sign
        rule = rule._replace(decay="decoupled" if decoupled else l2)
        numbers["weight_decay"] = values["weight_decay"]
    rule = rule._replace(direction="up" if values.get("maximize") else "down")
    return Formula(rule, HyperParams(learning_rate=float(values["lr"]))._replace(**numbers))
