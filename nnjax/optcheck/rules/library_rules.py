"""How libraries define their optimizers, as forms: for a reference by name, and as places to start a search from."""

from typing import NamedTuple

from nnjax.optcheck.rules.update_rule import Form, Hyper


class Named(NamedTuple):
    """An optimizer of a library."""

    form: Form
    hyper: Hyper  # the library's defaults, but for the learning rate


SGD = Form()
MOMENTUM = Form(velocity="trace")
NESTEROV = MOMENTUM._replace(nesterov="standard")
RMSPROP = Form(second="ema", eps="inside")
ADAGRAD = Form(second="sum", eps="inside")
ADADELTA = Form(second="ema", eps="inside", rescaled="adadelta")
MOMENTS = Form(first="ema", second="ema", eps="outside")
ADAM = MOMENTS._replace(first_correction="t", second_correction="t")
ADAM_HAT = ADAM._replace(eps="before correction")
ADAMAX = Form(first="ema", first_correction="t", second="largest with eps")
NADAM = ADAM._replace(numerator="nadam")
LION = Form(first="lion", sign="sign", decay="decoupled")

NAMED: dict[str, Named] = {
    "sgd": Named(SGD, Hyper()),
    "momentum": Named(MOMENTUM, Hyper()),
    "nesterov": Named(NESTEROV, Hyper()),
    "optax.rmsprop": Named(RMSPROP, Hyper(b2=0.9)),
    "optax.adagrad": Named(ADAGRAD, Hyper(second_start=0.1, eps=1e-7)),
    "optax.adadelta": Named(ADADELTA, Hyper(b2=0.9, eps=1e-6)),
    "optax.adam": Named(ADAM, Hyper()),
    "optax.adamw": Named(ADAM._replace(decay="decoupled"), Hyper(weight_decay=1e-4)),
    "optax.amsgrad": Named(ADAM._replace(maximum="corrected"), Hyper()),
    "optax.adamax": Named(ADAMAX, Hyper()),
    "optax.nadam": Named(NADAM, Hyper()),
    "optax.radam": Named(ADAM._replace(rectified="above 5"), Hyper()),
    "optax.adabelief": Named(ADAM._replace(second="belief", eps="grows"), Hyper(eps=1e-16, eps_root=1e-16)),
    "optax.yogi": Named(
        ADAM._replace(second="yogi"), Hyper(eps=1e-3, eps_root=0.0, first_start=1e-6, second_start=1e-6)
    ),
    "optax.lion": Named(LION, Hyper(b1=0.9, b2=0.99, weight_decay=1e-3)),
    "optax.lamb": Named(ADAM._replace(decay="decoupled", trust="lamb"), Hyper(eps=1e-6)),
    "optax.lars": Named(
        Form(decay="l2", trust="lars", velocity="trace", rate_place="inside"), Hyper(momentum=0.9, trust=1e-3)
    ),
    "identity": Named(SGD._replace(direction="up"), Hyper(learning_rate=1.0)),
    "torch.sgd": Named(SGD, Hyper()),
    "torch.sgd_momentum": Named(Form(velocity="dampened"), Hyper()),
    "torch.sgd_nesterov": Named(NESTEROV, Hyper()),
    "torch.rmsprop": Named(RMSPROP._replace(eps="outside"), Hyper(b2=0.99)),
    "torch.rmsprop_centered": Named(RMSPROP._replace(eps="outside", second="centered"), Hyper(b2=0.99)),
    "torch.adagrad": Named(ADAGRAD._replace(eps="outside"), Hyper(eps=1e-10)),
    "torch.adadelta": Named(ADADELTA, Hyper(b2=0.9, eps=1e-6)),
    "torch.adam": Named(ADAM, Hyper()),
    "torch.adamw": Named(ADAM._replace(decay="decoupled"), Hyper(weight_decay=1e-2)),
    "torch.amsgrad": Named(ADAM._replace(maximum="raw"), Hyper()),
    "torch.adamax": Named(ADAMAX, Hyper()),
    "torch.nadam": Named(NADAM, Hyper(momentum_decay=4e-3)),
    "torch.radam": Named(ADAM_HAT._replace(rectified="above 5"), Hyper()),
    "keras.sgd": Named(SGD, Hyper()),
    "keras.sgd_momentum": Named(MOMENTUM._replace(rate_place="inside"), Hyper()),
    "keras.sgd_nesterov": Named(NESTEROV._replace(rate_place="inside"), Hyper()),
    "keras.rmsprop": Named(RMSPROP, Hyper(b2=0.9, eps=1e-7)),
    "keras.adagrad": Named(ADAGRAD, Hyper(second_start=0.1, eps=1e-7)),
    "keras.adadelta": Named(ADADELTA, Hyper(b2=0.95, eps=1e-7)),
    "keras.adam": Named(ADAM_HAT, Hyper(eps=1e-7)),
    "keras.adamw": Named(ADAM_HAT._replace(decay="decoupled"), Hyper(eps=1e-7, weight_decay=4e-3)),
    "keras.adamax": Named(ADAMAX._replace(second="largest", eps="outside"), Hyper(eps=1e-7)),
    "keras.nadam": Named(NADAM, Hyper(eps=1e-7, momentum_decay=1.0)),
    "keras.lion": Named(LION._replace(decay="none"), Hyper(b1=0.9, b2=0.99)),
    "jax.example_libraries.sgd": Named(SGD, Hyper()),
    "jax.example_libraries.momentum": Named(MOMENTUM, Hyper()),
    "jax.example_libraries.nesterov": Named(NESTEROV, Hyper()),
    "jax.example_libraries.adagrad": Named(Form(second="sum", eps="none", velocity="ema"), Hyper()),
    "jax.example_libraries.rmsprop": Named(RMSPROP, Hyper(b2=0.9)),
    "jax.example_libraries.rmsprop_momentum": Named(
        RMSPROP._replace(velocity="trace", rate_place="inside"), Hyper(b2=0.9)
    ),
    "jax.example_libraries.adam": Named(ADAM, Hyper()),
    "jax.example_libraries.adamax": Named(ADAMAX._replace(second="largest", eps="outside"), Hyper()),
    "bert.adam": Named(MOMENTS._replace(decay="decoupled"), Hyper(eps=1e-6, weight_decay=1e-2)),
}
