"""Define the settings of a run as plain values, and turn them into a network, a loss and an optimizer."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_type_hints

import jax
import jax.numpy as jnp
import optax
from jax import Array

from nnjax import checks, losses, metrics, nn, optim
from nnjax.data._numbers import Decimal
from nnjax.data.table import Missing, Task
from nnjax.nn.initializers import Activation
from nnjax.storage.json_file import check_kind
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
LEARNING_RATES = {  # default learning rate of each optimizer, by its name in nnjax.optim
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
REGRESSION_METRICS: tuple[Metric, ...] = (metrics.r2, metrics.rmse)
LEAST_STEPS = 2000  # default minimum number of steps for a regression; 40 epochs of a small file have fewer
MOST_EPOCHS = 1000  # default maximum number of epochs for a regression
DECAY, DECAY_RANGE = 100, (0.01, 6.0)  # default weight decay of a regression: DECAY × features / examples, within range
WARMUP = 0.1  # fraction of the steps during which "warmup-cosine" increases the learning rate


@dataclass(frozen=True)
class Config:
    """The settings of a run, with the defaults of the command line."""

    data: str
    data_dir: str | None = None
    target: str | None = None
    task: Task | None = None
    categorical: str | None = None  # column names, separated by commas as in a CSV file
    drop: str | None = None  # column names, separated by commas as in a CSV file
    missing: Missing = "error"
    na: str | None = None  # strings that mark missing values, separated by commas as in a CSV file
    sep: str | None = None
    decimal: Decimal | None = None
    test_share: float = 0.2
    validation: float = 0.1
    width: int = 256
    depth: int = 2
    activation: str | None = None  # None here and in the next two fields means the default of the task
    norm: Literal["none", "batch", "layer"] | None = None
    dropout: float | None = None
    skip: bool = False
    optimizer: str = "adamw"
    learning_rate: float | None = None
    schedule: str = "cosine"
    schedule_epochs: float | None = None  # None means the epochs of the run
    weight_decay: float | None = None
    clip: float | None = None
    class_weights: Literal["none", "balanced"] = "none"
    batch_size: int = 64
    epochs: float | None = None
    seed: int = 0
    label_smoothing: float = 0.0
    members: int | None = None  # None if there is a single network
    strategy: Strategy | None = None  # None until the platform is known
    group: int | None = None
    patience: int | None = None
    save_every: float = 30.0  # seconds
    keep: int = 3


SETTINGS: dict[str, Any] = get_type_hints(Config)
SWEEPABLE = ("learning_rate", "width", "dropout", "weight_decay", "label_smoothing")  # stored as strings in sweep.json
STRUCTURAL = ("depth", "activation", "norm", "optimizer", "batch_size")  # stored as strings in search.json
SWEEP_SETTINGS = SETTINGS | dict.fromkeys(SWEEPABLE, str | None) | {"random": int | None, "seeds": int}
SEARCH_SETTINGS = (
    SETTINGS
    | dict.fromkeys(SWEEPABLE, str | None)
    | dict.fromkeys(STRUCTURAL, str | None)
    | {"trials": int, "population": int, "rungs": str | None, "method": str, "keep_share": float | None, "seeds": int}
    | {"folds": int | None}
)


def check_types(settings: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    """Check the names and types of settings that were read from a file.

    Args:
      settings: plain values, keyed by name.
      types: types, keyed by name, such as `SETTINGS`.

    Raises:
      ValueError: if a name is unknown or a value has the wrong type; the message names the first one.
    """
    for name, value in settings.items():
        check_kind(name, value, types[checks.one_of("settings", "name", name, types)])


def with_defaults(config: Config, task: Task, n: int, features: int = 1) -> Config:
    """Replace None in the settings with the defaults that depend on the data.

    By default, a regression has a smooth activation, no dropout and no normalisation. Dropout and batch statistics
    would add noise to its outputs, and layer normalisation would distort functions of one or two features. It takes at
    least `LEAST_STEPS` steps, but at most `MOST_EPOCHS` epochs. Its weight decay limits overfitting: it is `DECAY`
    times the number of features per training example, within `DECAY_RANGE`.

    Args:
      config: the settings.
      task: the task of the data.
      n: number of training examples.
      features: number of features.
    """
    if task == "classification":
        defaults: dict[str, Any] = {"activation": "relu", "norm": "batch", "dropout": 0.3, "epochs": 40}
    else:
        epochs = max(40, min(MOST_EPOCHS, math.ceil(LEAST_STEPS * config.batch_size / n)))
        defaults = {"activation": "gelu", "norm": "none", "dropout": 0.0, "epochs": epochs}
        if config.optimizer == "adamw":
            low, high = DECAY_RANGE
            defaults["weight_decay"] = min(max(float(f"{DECAY * features / n:.2g}"), low), high)
    return replace(config, **{name: value for name, value in defaults.items() if getattr(config, name) is None})


def fit_batch(config: Config, n: int) -> Config:
    """Reduce the default batch size to the number of training examples n (at least 2) if n is smaller."""
    small = config.batch_size == Config("").batch_size > n
    return replace(config, batch_size=max(2, n)) if small else config


def make_net(config: Config, outputs: int, width: Array | None = None) -> Layer:
    """Return the network, an `nn.residual_mlp` with skip connections or an `nn.mlp` without.

    Args:
      config: the settings; numbers may be traced.
      outputs: number of outputs.
      width: width of the hidden layers, which are padded to `config.width`; may be traced. None means no padding.

    Raises:
      ValueError: if a name is unknown, if a size is out of range, or if `width` is passed with skip connections.
    """
    config = with_defaults(config, "classification", 1)  # the task may not be known yet
    assert config.dropout is not None
    name = checks.one_of("--activation", "activation", str(config.activation), ACTIVATIONS)
    checks.one_of("--norm", "normalisation", str(config.norm), ("none", "batch", "layer"))
    activation = ACTIVATIONS[name]
    norm = None if config.norm == "none" else config.norm
    if config.skip:
        if width is not None:
            raise ValueError("--width cannot be swept with --skip, because residual blocks have a fixed width")
        return nn.residual_mlp(
            config.width, config.depth, outputs, activation=activation, norm=norm, dropout=config.dropout
        )
    widths = None if width is None else [width] * config.depth
    hidden = [config.width] * config.depth
    return nn.mlp(hidden, outputs, activation=activation, norm=norm, dropout=config.dropout, widths=widths)


def make_schedule(config: Config, steps: int) -> ScalarOrSchedule:
    """Return the learning rate as a schedule over the given number of steps.

    Raises:
      ValueError: if the schedule is unknown or the rate is negative.
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
    # The peak is 1.0, because optax compares the peak with 0, which fails for a traced rate
    return lambda count: rate * shape(count)


def make_optimizer(config: Config, steps: int) -> Optimizer:
    """Return the optimizer for a run of the given number of steps.

    Raises:
      ValueError: if a name is unknown, if a rate is out of range, or if the optimizer does not support weight decay.
    """
    checks.one_of("--optimizer", "optimizer", config.optimizer, LEARNING_RATES)
    rate = make_schedule(config, steps)
    rule = getattr(optim, config.optimizer)
    if config.optimizer in ("adamw", "lion"):
        optimizer: Optimizer = rule(rate, weight_decay=1e-2 if config.weight_decay is None else config.weight_decay)
    elif config.weight_decay is not None:
        raise ValueError(f"--weight-decay applies only to adamw and lion, not to {config.optimizer}")
    else:
        optimizer = rule(rate)
    if config.clip is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(checks.in_range("--clip", "norm", config.clip, "(0, inf)")), optimizer)


def make_loss(config: Config, task: Task) -> Loss:
    """Return the loss: cross-entropy for classification, squared error for regression.

    Raises:
      ValueError: if the label smoothing is out of range, or above 0 for a regression.
    """
    smoothing = checks.in_range("--label-smoothing", "share", config.label_smoothing, "[0, 1)")
    unsmoothed = isinstance(smoothing, float) and smoothing == 0
    if task == "regression":
        if not unsmoothed:
            raise ValueError("--label-smoothing applies only to classification")
        return losses.squared_error
    return losses.cross_entropy if unsmoothed else partial(losses.cross_entropy, label_smoothing=smoothing)


def make_run(config: Config, task: Task, outputs: int, n: int, width: Array | None = None) -> Run:
    """Create the run from the settings.

    Args:
      config: the settings; numbers may be traced.
      task: the task of the data, classification or regression.
      outputs: number of outputs.
      n: number of training examples, which determines the length of the learning-rate schedule.
      width: see `make_net`.

    Raises:
      ValueError: if a setting is out of range.
    """
    checks.positive_int("--batch-size", "batch size", config.batch_size)
    config = with_defaults(config, "classification", n)
    assert config.epochs is not None
    checks.in_range("--epochs", "epochs", config.epochs, "[0, inf)")
    steps = int(_schedule_epochs(config, config.epochs) * n / config.batch_size + 1)
    scores = REGRESSION_METRICS
    if task == "classification":
        scores = (metrics.accuracy, metrics.nll, metrics.brier, metrics.expected_calibration_error)
    net, loss, optimizer = make_net(config, outputs, width), make_loss(config, task), make_optimizer(config, steps)
    return Run(net, loss, optimizer, batch_size=config.batch_size, metrics=scores)


def _schedule_epochs(config: Config, epochs: float) -> float:
    """Return the number of epochs after which the learning rate has decayed to 0."""
    if config.schedule_epochs is None:
        return epochs
    if config.schedule == "constant":
        raise ValueError("--schedule-epochs applies only to a schedule that decays, not to --schedule constant")
    length = checks.in_range("--schedule-epochs", "epochs", config.schedule_epochs, "(0, inf)")
    if length < epochs:
        raise ValueError(f"--schedule-epochs must be at least --epochs, {epochs:g}, got {length:g}")
    return float(length)


def check_settings(config: Config) -> None:
    """Check all settings that can be checked before the data are read.

    Raises:
      ValueError: if a setting is invalid; the message names its option.
    """
    checks.positive_int("--width", "width", config.width)
    checks.in_range("--depth", "depth", config.depth, "[1, inf)" if config.skip else "[0, inf)")
    checks.in_range("--validation", "share", config.validation, "[0, 1)")
    checks.in_range("--test-share", "share", config.test_share, "(0, 1)")
    checks.in_range("--seed", "seed", config.seed, f"[0, {2**32})")  # JAX accepts 32-bit seeds
    checks.in_range("--save-every", "seconds", config.save_every, "[0, inf)")
    for name in ("members", "group", "patience", "keep"):
        if (number := getattr(config, name)) is not None:
            checks.positive_int(f"--{name}", name, number)
    if config.group is not None and config.members is None:
        raise ValueError("--group applies only with --members")
    if config.patience is not None and config.validation == 0:
        raise ValueError("--patience needs validation data; --validation must be > 0")
    if config.batch_size == 1 and config.norm in (None, "batch"):
        raise ValueError("--batch-size 1: batch normalisation needs at least 2 examples; use --norm layer or none")
    make_run(config, "classification", outputs=2, n=1)
