"""The settings of a run as plain values, as command line and run folder hold them, and the run they describe."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from nnjax import checks, losses, metrics, nn, optim
from nnjax.data.table import Task
from nnjax.nn.models import Activation
from nnjax.train.run import Run
from nnjax.types import Layer, Metric, Optimizer, ScalarOrSchedule

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


def make_net(config: Config, outputs: int) -> Layer:
    """The network: `residual_mlp` with skip connections, else `mlp`.

    Raises:
      ValueError: for unknown names and sizes out of range.
    """
    checks.one_of("--activation", "activation", config.activation, ACTIVATIONS)
    checks.one_of("--norm", "normalisation", config.norm, ("none", "batch", "layer"))
    activation = ACTIVATIONS[config.activation]
    norm = None if config.norm == "none" else config.norm
    if config.skip:
        return nn.residual_mlp(
            config.width, config.depth, outputs, activation=activation, norm=norm, dropout=config.dropout
        )
    return nn.mlp([config.width] * config.depth, outputs, activation=activation, norm=norm, dropout=config.dropout)


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
    return optax.warmup_cosine_decay_schedule(0.0, rate, warmup, max(steps, warmup + 1))


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


def make_run(config: Config, task: Task, outputs: int, n: int) -> Run:
    """The run on so many training examples.

    Raises:
      ValueError: for settings out of range.
    """
    checks.positive_int("--batch-size", "batch size", config.batch_size)
    checks.in_range("--epochs", "epochs", config.epochs, "[0, inf)")
    steps = int(config.epochs * n / config.batch_size + 1)
    scores: tuple[Metric, ...] = (metrics.r2, metrics.rmse)
    if task == "classification":
        scores = (metrics.accuracy, metrics.nll, metrics.brier, metrics.expected_calibration_error)
    loss = losses.cross_entropy if task == "classification" else losses.squared_error
    return Run(make_net(config, outputs), loss, make_optimizer(config, steps), config.batch_size, metrics=scores)
