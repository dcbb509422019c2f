"""Provide optimizers whose code reads like the published equation.

Each optimizer is an `optax.GradientTransformation` with optax's names and defaults. It works in `optax.chain`,
`optax.masked` and `optax.inject_hyperparams`, and its `update` ignores extra arguments such as `value=`.

For complex parameters, pass the conjugate of the gradient from `jax.grad`, which is the direction of steepest ascent.
`train.Run` does so automatically. Second moments are computed from |g|², which is real.

The following optimizers are equivalent for a constant learning rate r. `nnjax.optcheck` verifies that their updates
agree up to rounding. `torch` means torch.optim, and its first argument `params` is omitted. `example` means
jax.example_libraries.optimizers:

    sgd(r) = optax.sgd(r) = torch.SGD(lr=r) = example.sgd(r)
    momentum(r, 0.9) = optax.sgd(r, 0.9) = torch.SGD(lr=r, momentum=0.9) = example.momentum(r, 0.9)
    nesterov(r, 0.9) = optax.sgd(r, 0.9, nesterov=True) = torch.SGD(lr=r, momentum=0.9, nesterov=True)
    nesterov(r, 0.9) = example.nesterov(r, 0.9)
    rmsprop(r) = optax.rmsprop(r) = example.rmsprop(r)
    rmsprop(r, 0.99, eps_in_sqrt=False) = optax.rmsprop(r, 0.99, eps_in_sqrt=False) = torch.RMSprop(lr=r)
    optax.rmsprop(r, momentum=0.9) = example.rmsprop_momentum(r)
    adagrad(r) = optax.adagrad(r)
    adagrad(r, eps=0.0) = torch.Adagrad(lr=r, initial_accumulator_value=0.1, eps=0.0)
    adam(r) = optax.adam(r) = torch.Adam(lr=r) = example.adam(r)
    adamw(r, weight_decay=0.01) = optax.adamw(r, weight_decay=0.01) = torch.AdamW(lr=r)
    optax.chain(optax.add_decayed_weights(0.01), adam(r)) = torch.Adam(lr=r, weight_decay=0.01)
    nadam(r) = optax.nadam(r)
    lion(r) = optax.lion(r)
    optax.adamax(r) = torch.Adamax(lr=r)
    optax.adadelta(r) = torch.Adadelta(lr=r)
    optax.radam(r, eps=0.0) = torch.RAdam(lr=r, eps=0.0)

The following optimizers differ, for the causes that `nnjax.optcheck` reports. If all causes are hyper-parameters, the
optimizers agree once these have the same values:

    optax.rmsprop(r, 0.99) ≠ torch.RMSprop(lr=r): eps-inside
    optax.rmsprop(r) ≠ keras.rmsprop: eps
    optax.adam(r) ≠ keras.adam: eps, eps-outside
    optax.amsgrad(r) ≠ torch.Adam(lr=r, amsgrad=True): maximum-corrected
    optax.nadam(r) ≠ torch.nadam: momentum_decay, product_storage-raw
    optax.nadam(r) ≠ keras.nadam: eps, momentum_decay
    optax.radam(r) ≠ torch.RAdam(lr=r): eps-outside
    optax.adagrad(r) ≠ torch.Adagrad(lr=r): eps, eps-inside, second_start
    optax.adamw(r) ≠ torch.AdamW(lr=r): weight_decay
    optax.adamax(r) ≠ example.adamax(r): eps-none, second-largest-with-eps
    example.adagrad(r) ≠ optax.adagrad(r): eps-none, momentum, second_start, velocity-ema
"""

from nnjax.optim._adagrad import adagrad
from nnjax.optim._adam import adam
from nnjax.optim._adamw import adamw
from nnjax.optim._lion import lion
from nnjax.optim._momentum import momentum, nesterov
from nnjax.optim._nadam import nadam
from nnjax.optim._params_ema import averaged, params_ema
from nnjax.optim._rmsprop import rmsprop
from nnjax.optim._sgd import sgd

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
