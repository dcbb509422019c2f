"""Write a formula as a call to optax or PyTorch that computes the same updates."""

import ast
import importlib.util
import inspect
from typing import Any

from nnjax.optcheck.rules.library_rules import (
    ADADELTA,
    ADAGRAD,
    ADAM,
    ADAM_HAT,
    ADAMAX,
    LION,
    NESTEROV,
    RMSPROP,
    SGD,
    SIGN,
)
from nnjax.optcheck.rules.named.adafactor import AdafactorRule
from nnjax.optcheck.rules.named.adan import AdanRule
from nnjax.optcheck.rules.named.adopt import AdoptRule
from nnjax.optcheck.rules.named.muon import MuonRule
from nnjax.optcheck.rules.named.prodigy import ProdigyRule
from nnjax.optcheck.rules.named.schedule_free import ScheduleFreeRule
from nnjax.optcheck.rules.named.sophia import SophiaRule
from nnjax.optcheck.rules.update_rule import Formula, HyperParams, UpdateRule

DECOUPLED, L2 = "decoupled", "l2"
PRECONDITIONERS: tuple[tuple[UpdateRule, str, dict[str, str]], ...] = (  # rule, optax function, its arguments
    (SGD, "identity", {}),
    (RMSPROP, "scale_by_rms", {"decay": "b2", "eps": "eps", "initial_scale": "second_start"}),
    (RMSPROP._replace(eps="outside"), "scale_by_rms", {"decay": "b2", "eps": "eps", "initial_scale": "second_start",
        "eps_in_sqrt": "False"}),
    (RMSPROP._replace(second="centered"), "scale_by_stddev", {"decay": "b2", "eps": "eps"}),
    (ADAGRAD, "scale_by_rss", {"initial_accumulator_value": "second_start", "eps": "eps"}),
    (ADADELTA, "scale_by_adadelta", {"rho": "b2", "eps": "eps"}),
    (ADAM, "scale_by_adam", {"b1": "b1", "b2": "b2", "eps": "eps", "eps_root": "eps_root"}),
    (ADAM._replace(eps="inside"), "scale_by_adam", {"b1": "b1", "b2": "b2", "eps": "0", "eps_root": "eps"}),
    (ADAM._replace(numerator="nadam"), "scale_by_adam", {"b1": "b1", "b2": "b2", "eps": "eps", "nesterov": "True"}),
    (ADAM._replace(maximum="corrected"), "scale_by_amsgrad", {"b1": "b1", "b2": "b2", "eps": "eps"}),
    (ADAMAX, "scale_by_adamax", {"b1": "b1", "b2": "b2", "eps": "eps"}),
    (ADAM._replace(rectification="above 5"), "scale_by_radam", {"b1": "b1", "b2": "b2", "eps": "eps"}),
    (LION._replace(decay="none"), "scale_by_lion", {"b1": "b1", "b2": "b2"}),
    (SIGN, "scale_by_sign", {}),
)  # fmt: skip
SHORT = {  # scale_by_X: names of the optax optimizers without and with decoupled weight decay
    "identity": ("sgd", ""), "scale_by_rms": ("rmsprop", ""), "scale_by_rss": ("adagrad", ""),
    "scale_by_adadelta": ("adadelta", ""), "scale_by_adam": ("adam", "adamw"), "scale_by_amsgrad": ("amsgrad", ""),
    "scale_by_adamax": ("adamax", "adamaxw"), "scale_by_radam": ("radam", ""), "scale_by_lion": ("", "lion"),
    "scale_by_sign": ("sign_sgd", ""),
}  # fmt: skip
TORCH: tuple[tuple[UpdateRule, str, dict[str, str]], ...] = (
    (SGD, "SGD", {}),
    (UpdateRule(velocity="trace"), "SGD", {"momentum": "momentum"}),
    (UpdateRule(velocity="dampened"), "SGD", {"momentum": "momentum", "dampening": "dampening"}),
    (NESTEROV, "SGD", {"momentum": "momentum", "nesterov": "True"}),
    (RMSPROP._replace(eps="outside"), "RMSprop", {"alpha": "b2", "eps": "eps"}),
    (RMSPROP._replace(eps="outside", second="centered"), "RMSprop", {"alpha": "b2", "eps": "eps", "centered": "True"}),
    (ADAGRAD._replace(eps="outside"), "Adagrad", {"eps": "eps", "initial_accumulator_value": "second_start"}),
    (ADADELTA, "Adadelta", {"rho": "b2", "eps": "eps"}),
    (ADAM, "Adam", {"betas": "betas", "eps": "eps"}),
    (ADAM._replace(maximum="raw"), "Adam", {"betas": "betas", "eps": "eps", "amsgrad": "True"}),
    (ADAMAX, "Adamax", {"betas": "betas", "eps": "eps"}),
    (ADAM._replace(numerator="nadam", product_storage="float32"), "NAdam", {"betas": "betas", "eps": "eps",
     "momentum_decay": "momentum_decay"}),
    (ADAM_HAT._replace(rectification="above 5"), "RAdam", {"betas": "betas", "eps": "eps"}),
)  # fmt: skip
ADAN = {"b1": "b1", "b2": "b2", "b3": "b3", "eps": "eps", "eps_root": "eps_root"}
ADOPT = {"b1": "b1", "b2": "b2", "eps": "eps"}
FACTORS = {"decay_rate": "power", "eps": "eps", "min_dim_size_to_factor": "1"}
FREE = {"b1": "b1", "b2": "b2", "eps": "eps"}
PRODIGY = {"betas": "betas", "beta3": "b3", "eps": "eps", "estim_lr0": "distance"}
DECAY = {"weight_decay": "weight_decay"}
SOPHIA = FREE | {"gamma": "gamma"}
SOPHIA_RULE = SophiaRule(used="old", correction="t")
NAMED: tuple[tuple[Any, str, dict[str, str]], ...] = (
    (AdanRule(weight="complement"), "adan", ADAN),
    (AdanRule(weight="complement", decay=DECOUPLED), "adan", ADAN | DECAY),
    (AdoptRule(), "contrib.adopt", ADOPT),
    (AdoptRule(nesterov="standard"), "contrib.adopt", ADOPT | {"nesterov": "True"}),
    (AdoptRule(clip="none"), "contrib.adopt", ADOPT | {"use_clipping": "False"}),
    (AdafactorRule(), "adafactor", FACTORS | {"clipping_threshold": "clip"}),
    (AdafactorRule(factored="none"), "adafactor", FACTORS | {"clipping_threshold": "clip", "factored": "False"}),
    (AdafactorRule(clip="none"), "adafactor", FACTORS | {"clipping_threshold": "None"}),
    (AdafactorRule(scale="none"), "adafactor",
        FACTORS | {"clipping_threshold": "clip", "multiply_by_parameter_scale": "False"}),
    (MuonRule(nesterov="corrected", scale="columns over rows"), "contrib.muon",
        {"beta": "momentum", "adam_b1": "b1", "adam_b2": "b2", "eps": "eps"}),
    (ScheduleFreeRule(second="none"), "contrib.schedule_free_sgd", {"b1": "b1"}),
    (ScheduleFreeRule(), "contrib.schedule_free_adamw", FREE),
    (ScheduleFreeRule(decay=DECOUPLED), "contrib.schedule_free_adamw", FREE | DECAY),
    (ProdigyRule(correction="t"), "contrib.prodigy", PRODIGY),
    (ProdigyRule(correction="t", decay=DECOUPLED), "contrib.prodigy", PRODIGY | DECAY),
    *((SOPHIA_RULE._replace(decay=decay, interval=count, clip=clip), "contrib.sophia",
        SOPHIA | {"update_interval": count, "clip_threshold": "clip" if clip == "value" else "None",
            "weight_decay": "weight_decay" if decay == DECOUPLED else "0.0"})
        for decay in ("none", DECOUPLED) for count in ("1", "2", "5", "10", "20") for clip in ("value", "none")),
)  # fmt: skip
CLIPS = {"value": "clip", "global norm": "clip_by_global_norm"}


def optax_call(formula: Formula, mask: str = "") -> str | None:
    """Return code that creates an optax optimizer with this formula, or None if optax has no such optimizer.

    Args:
      formula: the rule and its hyper-parameters.
      mask: code of the mask that selects the leaves with weight decay; "" for all leaves.
    """
    rule, hyper = formula
    if not isinstance(rule, UpdateRule):
        return None if mask else _named_call(formula)
    plain = UpdateRule()
    around = ("centre", "clip", "decay", "velocity", "nesterov", "rate_position", "schedule", "direction")
    core = rule._replace(**{place: getattr(plain, place) for place in around})
    if rule.clip not in ("none", *CLIPS) or rule.schedule not in ("current", "inverse root"):
        return None
    entry = next(((name, arguments) for known, name, arguments in PRECONDITIONERS if known == core), None)
    if entry is None or rule.decay not in ("none", DECOUPLED, L2):
        return None
    name, arguments = entry
    rate = _number(hyper.learning_rate * (-1 if rule.direction == "up" else 1))
    if rule.schedule == "inverse root":
        rate = f"lambda count: {rate} / (count + 1) ** 0.5"
    own = [_call(f"optax.{name}", _texts(arguments, hyper))] if name != "identity" else []
    velocity = _velocity(rule, hyper)
    if velocity is None:
        return None
    masking = f", mask={mask}" if mask else ""
    decay = [f"optax.add_decayed_weights({_number(hyper.weight_decay)}{masking})"] if rule.decay != "none" else []
    clip = [f"optax.{CLIPS[rule.clip]}({_number(hyper.clip)})"] if rule.clip != "none" else []
    clip = ["optax.centralize()", *clip] if rule.centre != "none" else clip
    before = clip + (decay if rule.decay == L2 else [])
    after = decay if rule.decay == DECOUPLED else []
    short = _short(rule, hyper, name, arguments, rate, mask)
    parts = [*before, short] if short else [*before, *own, *velocity, *after, f"optax.scale_by_learning_rate({rate})"]
    return parts[0] if len(parts) == 1 else f"optax.chain({', '.join(parts)})"


def torch_call(formula: Formula) -> str | None:
    """Return code for a PyTorch optimizer class with this formula, or None if PyTorch or such a class is missing."""
    rule, hyper = formula
    if not isinstance(rule, UpdateRule) or importlib.util.find_spec("torch") is None:
        return None
    core = rule._replace(decay="none")
    entry = next(((name, arguments) for known, name, arguments in TORCH if known == core), None)
    if entry is None or rule.decay not in ("none", DECOUPLED, L2):
        return None
    name, arguments = entry
    if rule.decay == DECOUPLED:
        if name != "Adam":
            return None
        name = "AdamW"
    texts = _texts(arguments, hyper)
    if rule.decay != "none":
        texts["weight_decay"] = _number(hyper.weight_decay)
    return _call(f"torch.optim.{name}", texts, f"lr={_number(hyper.learning_rate)}", partial=True)


def _named_call(formula: Formula) -> str | None:
    """Return the optax call for a rule that is named after its paper, or None if optax lacks its choices."""
    rule, hyper = formula
    entry = next(((name, arguments) for known, name, arguments in NAMED if known == rule), None)
    if entry is None:
        return None
    return _call(f"optax.{entry[0]}", _texts(entry[1], hyper), _number(hyper.learning_rate))


def _short(rule: UpdateRule, hyper: HyperParams, name: str, arguments: dict[str, str], rate: str, mask: str) -> str:
    """Return the code of a call to an optax optimizer such as `optax.adam`, or "" if the formula needs a chain."""
    plain, decayed = SHORT.get(name, ("", ""))
    texts = _texts(arguments, hyper)
    if rule.velocity != "none":
        if plain not in ("sgd", "rmsprop") or rule.velocity != "trace" or rule.nesterov not in ("none", "standard"):
            return ""
        texts["momentum"] = _number(hyper.momentum)
        texts |= {"nesterov": "True"} if rule.nesterov == "standard" else {}
    if plain == "rmsprop" and rule.second == "centered":
        texts["centered"] = "True"
    if rule.decay == DECOUPLED or (decayed and not plain):
        texts["weight_decay"] = _number(hyper.weight_decay if rule.decay == DECOUPLED else 0.0)
        texts |= {"mask": mask} if mask else {}
        plain = decayed
    return _call(f"optax.{plain}", texts, rate) if plain else ""


def _velocity(rule: UpdateRule, hyper: HyperParams) -> list[str] | None:
    if rule.velocity == "none":
        return []
    if rule.nesterov not in ("none", "standard"):
        return None
    nesterov = ", nesterov=True" if rule.nesterov == "standard" else ""
    if rule.velocity == "trace":
        return [f"optax.trace({_number(hyper.momentum)}{nesterov})"]
    if rule.velocity == "ema" and not nesterov:
        return [f"optax.ema({_number(hyper.momentum)}, debias=False)"]
    return None


def _texts(arguments: dict[str, str], hyper: HyperParams) -> dict[str, str]:
    """Return the code of each argument, which is either a hyper-parameter or a constant."""
    values = {name: _number(value) for name, value in hyper._asdict().items()}
    values["betas"] = f"({values['b1']}, {values['b2']})"
    return {name: values.get(source, source) for name, source in arguments.items()}


def _call(function: str, texts: dict[str, str], *first: str, partial: bool = False) -> str:
    """Return the code of a call, or of a partial one, without arguments that equal their defaults."""
    defaults = {p.name: p.default for p in inspect.signature(_resolve(function)).parameters.values()}
    changed = {name: text for name, text in texts.items() if name in defaults and _value(text) != defaults[name]}
    arguments = ", ".join([*first, *(f"{name}={text}" for name, text in changed.items())])
    return f"functools.partial({function}, {arguments})" if partial else f"{function}({arguments})"


def _resolve(function: str) -> Any:
    library, *names = function.split(".")
    optimizer: Any = importlib.import_module(library)
    for name in names:
        optimizer = getattr(optimizer, name)
    return optimizer


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _number(value: Any) -> str:
    return f"{float(value):.9g}"
