"""The settings of a run as plain values, as command line and run folder hold them, and the run they describe."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args, get_type_hints

import jax
import jax.numpy as jnp
import optax
from jax import Array

from nnjax import checks, losses, metrics, nn, optim
from nnjax.data.table import Task
from nnjax.nn.initializers import Activation
from nnjax.train.engine.ensemble import Strategy
from nnjax.train.run import Run
from nnjax.types import Layer, Loss, Metric, Optimizer, ScalarOrSchedule

ACTIVATIONS: dict[str, Activation] = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "leaky_relu": jax.nn.leaky_relu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
}
LEARNING_RATES = {  # where none is given
    "sgd": 0.1,
    "momentum": 0.03,
    "nesterov": 0.03,
    "rmsprop": 1e-3,
    "adagrad": 0.03,
    "adam": 3e-3,
    "adamw": 3e-3,
    "nadam": 3e-3,
    "lion": 3e-4,
}
SCHEDULES = ("constant", "cosine", "warmup-cosine", "linear")
WARMUP = 0.1  # share of the steps of "warmup-cosine" over which the rate rises


@dataclass(frozen=True)
class Config:
    """The settings of a run; the defaults are the command line's."""

    data: str
    data_dir: str | None = None
    target: str | None = None
    task: Task | None = None
    test_share: float = 0.2
    validation: float = 0.1
    width: int = 256
    depth: int = 2
    activation: str = "relu"
    norm: Literal["none", "batch", "layer"] = "batch"
    dropout: float = 0.3
    skip: bool = False
    optimizer: str = "adamw"
    learning_rate: float | None = None
    schedule: str = "cosine"
    weight_decay: float | None = None
    clip: float | None = None
    batch_size: int = 64
    epochs: float = 40
    seed: int = 0
    label_smoothing: float = 0.0
    members: int | None = None  # None for one network, without an axis of members
    strategy: Strategy = "map"
    group: int | None = None
    patience: int | None = None
    save_every: float = 30.0  # seconds
    keep: int = 3


SETTINGS: dict[str, Any] = get_type_hints(Config)
NUMBERS = ("learning_rate", "width", "dropout", "weight_decay", "label_smoothing")  # that can be swept, as texts
SWEPT: dict[str, Any] = dict.fromkeys(NUMBERS, str | None) | {"random": int | None, "seeds": int}  # of a sweep
KINDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", type(None): "null"}


def check_kinds(settings: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Settings from a file have known names and values of the kinds that were written.

    Args:
      settings: plain values by name.
      kinds: the type of each name, as `SETTINGS`.

    Raises:
      ValueError: with the first name or value that is wrong.
    """
    for name, value in settings.items():
        kind = kinds[checks.one_of("settings", "name", name, kinds)]
        parts = [one for part in get_args(kind) or (kind,) for one in get_args(part) or (part,)]
        if not any(value == one if isinstance(one, str) else _is(value, one) for one in parts):
            wanted = " or ".join(repr(one) if isinstance(one, str) else KINDS[one] for one in parts)
            raise ValueError(f"{name} must be {wanted}, got {value!r}")


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def make_net(config: Config, outputs: int, width: Array | None = None) -> Layer:
    """The network: `residual_mlp` with skip connections, else `mlp`.

    Args:
      config: the settings, of which numbers may be traced.
      outputs: width of the output.
      width: true width of the hidden layers, which may be traced, the rest of `config.width` being padding.

    Raises:
      ValueError: for unknown names and sizes out of range.
    """
    checks.one_of("--activation", "activation", config.activation, ACTIVATIONS)
    checks.one_of("--norm", "normalisation", config.norm, ("none", "batch", "layer"))
    activation = ACTIVATIONS[config.activation]
    norm = None if config.norm == "none" else config.norm
    if config.skip:
        if width is not None:
            raise ValueError("--width: with --skip the width is one number")
        return nn.residual_mlp(
            config.width, config.depth, outputs, activation=activation, norm=norm, dropout=config.dropout
        )
    widths = None if width is None else [width] * config.depth
    hidden = [config.width] * config.depth
    return nn.mlp(hidden, outputs, activation=activation, norm=norm, dropout=config.dropout, widths=widths)


def make_schedule(config: Config, steps: int) -> ScalarOrSchedule:
    """The learning rate over a run of so many steps.

    Raises:
      ValueError: for an unknown schedule or a negative rate.
    """
    checks.one_of("--schedule", "schedule", config.schedule, SCHEDULES)
    rate = config.learning_rate if config.learning_rate is not None else LEARNING_RATES[config.optimizer]
    checks.in_range("--learning-rate", "learning rate", rate, "[0, inf)")
    if config.schedule == "constant":
        return rate
    if config.schedule == "linear":
        return optax.linear_schedule(rate, 0.0, max(steps, 1))
    if config.schedule == "cosine":
        return optax.cosine_decay_schedule(rate, max(steps, 1))
    warmup = max(1, int(WARMUP * steps))
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, max(steps, warmup + 1))
    return lambda count: rate * shape(count)  # for optax compares the highest rate with 0, which a tracer forbids


def make_optimizer(config: Config, steps: int) -> Optimizer:
    """The optimizer for a run of so many steps.

    Raises:
      ValueError: for unknown names, rates out of range, or weight decay for an optimizer that has none.
    """
    checks.one_of("--optimizer", "optimizer", config.optimizer, LEARNING_RATES)
    rate = make_schedule(config, steps)
    simple = {
        "sgd": optim.sgd,
        "momentum": optim.momentum,
        "nesterov": optim.nesterov,
        "rmsprop": optim.rmsprop,
        "adagrad": optim.adagrad,
        "adam": optim.adam,
        "nadam": optim.nadam,
    }
    if config.optimizer in simple:
        if config.weight_decay is not None:
            raise ValueError(f"--weight-decay is for adamw and lion, {config.optimizer} has none")
        optimizer = simple[config.optimizer](rate)
    else:
        decay = 1e-2 if config.weight_decay is None else config.weight_decay
        decoupled = optim.adamw if config.optimizer == "adamw" else optim.lion
        optimizer = decoupled(rate, weight_decay=decay)
    if config.clip is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(checks.in_range("--clip", "norm", config.clip, "(0, inf)")), optimizer)


def make_loss(config: Config, task: Task) -> Loss:
    """Cross-entropy for classes, squared error for numbers.

    Raises:
      ValueError: for label smoothing out of range, or of numbers.
    """
    smoothing = checks.in_range("--label-smoothing", "share", config.label_smoothing, "[0, 1)")
    none = isinstance(smoothing, float) and smoothing == 0
    if task == "regression":
        if not none:
            raise ValueError("--label-smoothing is for classification")
        return losses.squared_error
    return losses.cross_entropy if none else partial(losses.cross_entropy, label_smoothing=smoothing)


def make_run(config: Config, task: Task, outputs: int, n: int, width: Array | None = None) -> Run:
    """The run on so many training examples.

    Args:
      config: the settings, of which numbers may be traced.
      task: of the data.
      outputs: width of the output.
      n: number of training examples.
      width: see `make_net`.

    Raises:
      ValueError: for settings out of range.
    """
    checks.positive_int("--batch-size", "batch size", config.batch_size)
    checks.in_range("--epochs", "epochs", config.epochs, "[0, inf)")
    steps = int(config.epochs * n / config.batch_size + 1)
    scores: tuple[Metric, ...] = (metrics.r2, metrics.rmse)
    if task == "classification":
        scores = (metrics.accuracy, metrics.nll, metrics.brier, metrics.expected_calibration_error)
    net, loss, optimizer = make_net(config, outputs, width), make_loss(config, task), make_optimizer(config, steps)
    return Run(net, loss, optimizer, batch_size=config.batch_size, metrics=scores)


def check(config: Config) -> None:
    """What is wrong whatever the data is said before they are read.

    Raises:
      ValueError: with the option.
    """
    checks.positive_int("--width", "width", config.width)
    checks.in_range("--depth", "depth", config.depth, "[1, inf)" if config.skip else "[0, inf)")
    checks.in_range("--validation", "share", config.validation, "[0, 1)")
    checks.in_range("--test-share", "share", config.test_share, "(0, 1)")
    checks.in_range("--seed", "seed", config.seed, f"[0, {2**32})")  # what a key of JAX holds
    checks.in_range("--save-every", "seconds", config.save_every, "[0, inf)")
    for name in ("members", "group", "patience", "keep"):
        if (number := getattr(config, name)) is not None:
            checks.positive_int(f"--{name}", name, number)
    if config.group is not None and config.members is None:
        raise ValueError("--group is for --members")
    if config.patience is not None and config.validation == 0:
        raise ValueError("--patience counts validations; --validation 0 leaves none")
    if config.batch_size == 1 and config.norm == "batch":
        raise ValueError("--batch-size 1: one example has no variance to normalise by; use --norm layer or none")
    make_run(config, "classification", outputs=2, n=1)
