"""Optimizers, written so that the published equation is what one reads.

Each is an `optax.GradientTransformation` with optax's names and defaults, and goes wherever optax's do: into
`optax.chain`, `optax.masked`, `optax.inject_hyperparams`.
"""

from nnjax.optim.adagrad import adagrad
from nnjax.optim.adam import adam
from nnjax.optim.adamw import adamw
from nnjax.optim.lion import lion
from nnjax.optim.momentum import momentum, nesterov
from nnjax.optim.nadam import nadam
from nnjax.optim.params_ema import averaged, params_ema
from nnjax.optim.rmsprop import rmsprop
from nnjax.optim.sgd import sgd

__all__ = [
    "adagrad",
    "adam",
    "adamw",
    "averaged",
    "lion",
    "momentum",
    "nadam",
    "nesterov",
    "params_ema",
    "rmsprop",
    "sgd",
]
