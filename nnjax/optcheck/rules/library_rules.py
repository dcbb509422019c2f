"""List the update rules of libraries with default hyper-parameters, as references and starting points of searches."""

import numpy as np

from nnjax.optcheck.rules.named.adafactor import AdafactorRule
from nnjax.optcheck.rules.named.adamp import AdamPRule
from nnjax.optcheck.rules.named.adan import AdanRule
from nnjax.optcheck.rules.named.adopt import AdoptRule
from nnjax.optcheck.rules.named.muon import MuonRule
from nnjax.optcheck.rules.named.prodigy import ProdigyRule
from nnjax.optcheck.rules.named.schedule_free import ScheduleFreeRule
from nnjax.optcheck.rules.named.sophia import SophiaRule
from nnjax.optcheck.rules.update_rule import Formula, HyperParams, UpdateRule

SGD = UpdateRule()
MOMENTUM = UpdateRule(velocity="trace")
NESTEROV = MOMENTUM._replace(nesterov="standard")
RMSPROP = UpdateRule(second="ema", eps="inside")
ADAGRAD = UpdateRule(second="sum", eps="inside")
ADADELTA = UpdateRule(second="ema", eps="inside", rescaling="adadelta")
MOMENTS = UpdateRule(first="ema", second="ema", eps="outside")
ADAM = MOMENTS._replace(first_correction="t", second_correction="t")
ADAM_HAT = ADAM._replace(eps="before correction")
ADAMAX = UpdateRule(first="ema", first_correction="t", second="largest with eps")
NADAM = ADAM._replace(numerator="nadam")
LION = UpdateRule(first="lion", sign="sign", decay="decoupled")
NOVOGRAD = UpdateRule(second="ema from first", second_scope="leaf norm", eps="outside", velocity="trace")
SIGN = UpdateRule(sign="sign")
MARS = ADAM._replace(variance="mars", clip="leaf norm", decay="decoupled")
OPTAX_ADAFACTOR = AdafactorRule(factored="none")  # optax does not factor matrices with fewer than 128 rows or columns
OPTAX_MUON = MuonRule(nesterov="corrected", scale="columns over rows")
ADAN_HYPER = HyperParams(b1=0.98, b2=0.92, b3=0.99)
MUON_HYPER = HyperParams(momentum=0.95)
SOPHIA_HYPER = HyperParams(b1=0.96, b2=0.99, eps=1e-12, gamma=0.01)
PRODIGY_HYPER = HyperParams(learning_rate=1.0, b3=0.999**0.5)

LIBRARY_RULES: dict[str, Formula] = {
    "sgd": Formula(SGD, HyperParams()),
    "momentum": Formula(MOMENTUM, HyperParams()),
    "nesterov": Formula(NESTEROV, HyperParams()),
    "optax.rmsprop": Formula(RMSPROP, HyperParams(b2=0.9)),
    "optax.adagrad": Formula(ADAGRAD, HyperParams(second_start=0.1, eps=1e-7)),
    "optax.adadelta": Formula(ADADELTA, HyperParams(b2=0.9, eps=1e-6)),
    "optax.adam": Formula(ADAM, HyperParams()),
    "optax.adamw": Formula(ADAM._replace(decay="decoupled"), HyperParams(weight_decay=1e-4)),
    "optax.amsgrad": Formula(ADAM._replace(maximum="corrected"), HyperParams()),
    "optax.adamax": Formula(ADAMAX, HyperParams()),
    "optax.nadam": Formula(NADAM, HyperParams()),
    "optax.radam": Formula(ADAM._replace(rectification="above 5"), HyperParams()),
    "optax.adabelief": Formula(ADAM._replace(second="belief", eps="in state"), HyperParams(eps=1e-16, eps_state=1e-16)),
    "optax.yogi": Formula(
        ADAM._replace(second="yogi"), HyperParams(eps=1e-3, eps_root=0.0, first_start=1e-6, second_start=1e-6)
    ),
    "optax.lion": Formula(LION, HyperParams(b1=0.9, b2=0.99, weight_decay=1e-3)),
    "optax.novograd": Formula(NOVOGRAD, HyperParams(b2=0.25, eps=1e-6)),
    "optax.sign_sgd": Formula(SIGN, HyperParams()),
    "paper.signum": Formula(SIGN._replace(first="ema"), HyperParams()),
    "optax.lamb": Formula(ADAM._replace(trust="lamb"), HyperParams(eps=1e-6)),
    "optax.lars": Formula(
        UpdateRule(decay="l2", trust="lars", velocity="trace", rate_position="inside"),
        HyperParams(momentum=0.9, trust=1e-3),
    ),
    "identity": Formula(SGD._replace(direction="up"), HyperParams(learning_rate=1.0)),
    "torch.sgd": Formula(SGD, HyperParams()),
    "torch.sgd_momentum": Formula(UpdateRule(velocity="dampened"), HyperParams()),
    "torch.sgd_nesterov": Formula(NESTEROV, HyperParams()),
    "torch.rmsprop": Formula(RMSPROP._replace(eps="outside"), HyperParams(b2=0.99)),
    "torch.rmsprop_centered": Formula(RMSPROP._replace(eps="outside", second="centered"), HyperParams(b2=0.99)),
    "torch.adagrad": Formula(ADAGRAD._replace(eps="outside"), HyperParams(eps=1e-10)),
    "torch.adadelta": Formula(ADADELTA, HyperParams(b2=0.9, eps=1e-6)),
    "torch.adam": Formula(ADAM, HyperParams()),
    "torch.adamw": Formula(ADAM._replace(decay="decoupled"), HyperParams(weight_decay=1e-2)),
    "torch.amsgrad": Formula(ADAM._replace(maximum="raw"), HyperParams()),
    "torch.adamax": Formula(ADAMAX, HyperParams()),
    "torch.nadam": Formula(NADAM._replace(product_storage="float32"), HyperParams(momentum_decay=4e-3)),
    "torch.radam": Formula(ADAM_HAT._replace(rectification="above 5"), HyperParams()),
    "keras.sgd": Formula(SGD, HyperParams()),
    "keras.sgd_momentum": Formula(MOMENTUM._replace(rate_position="inside"), HyperParams()),
    "keras.sgd_nesterov": Formula(NESTEROV._replace(rate_position="inside"), HyperParams()),
    "keras.rmsprop": Formula(RMSPROP, HyperParams(b2=0.9, eps=1e-7)),
    "keras.adagrad": Formula(ADAGRAD, HyperParams(second_start=0.1, eps=1e-7)),
    "keras.adadelta": Formula(ADADELTA, HyperParams(b2=0.95, eps=1e-7)),
    "keras.adam": Formula(ADAM_HAT, HyperParams(eps=1e-7)),
    "keras.adamw": Formula(ADAM_HAT._replace(decay="decoupled"), HyperParams(eps=1e-7, weight_decay=4e-3)),
    "keras.adamax": Formula(ADAMAX._replace(second="largest", eps="outside"), HyperParams(eps=1e-7)),
    "keras.nadam": Formula(NADAM, HyperParams(eps=1e-7, momentum_decay=1.0)),
    "keras.lion": Formula(LION._replace(decay="none"), HyperParams(b1=0.9, b2=0.99)),
    "jax.example_libraries.sgd": Formula(SGD, HyperParams()),
    "jax.example_libraries.momentum": Formula(MOMENTUM, HyperParams()),
    "jax.example_libraries.nesterov": Formula(NESTEROV, HyperParams()),
    "jax.example_libraries.adagrad": Formula(UpdateRule(second="sum", eps="none", velocity="ema"), HyperParams()),
    "jax.example_libraries.rmsprop": Formula(RMSPROP, HyperParams(b2=0.9)),
    "jax.example_libraries.rmsprop_momentum": Formula(
        RMSPROP._replace(velocity="trace", rate_position="inside"), HyperParams(b2=0.9)
    ),
    "jax.example_libraries.adam": Formula(ADAM, HyperParams()),
    "jax.example_libraries.adamax": Formula(ADAMAX._replace(second="largest", eps="outside"), HyperParams()),
    "bert.adam": Formula(MOMENTS._replace(decay="decoupled"), HyperParams(eps=1e-6, weight_decay=1e-2)),
    "optax.adan": Formula(AdanRule(weight="complement"), ADAN_HYPER._replace(eps_root=1e-8)),
    "paper.adan": Formula(AdanRule(), ADAN_HYPER),
    "paper.adan_decayed": Formula(AdanRule(decay="proximal"), ADAN_HYPER._replace(weight_decay=2e-2)),
    "optax.contrib.adopt": Formula(AdoptRule(), HyperParams(b2=0.9999, eps=1e-6)),
    "optax.adafactor": Formula(OPTAX_ADAFACTOR, HyperParams(eps=1e-30)),
    "paper.adafactor": Formula(AdafactorRule(), HyperParams(eps=1e-30)),
    "torch.adafactor": Formula(
        AdafactorRule(eps="floor", rate="at most inverse root"), HyperParams(eps=float(np.finfo(np.float64).eps))
    ),
    "optax.contrib.muon": Formula(OPTAX_MUON, MUON_HYPER),
    "torch.muon": Formula(MuonRule(others="adam", decay="decoupled"), MUON_HYPER._replace(weight_decay=0.1)),
    "paper.muon": Formula(MuonRule(first="ema", others="adam"), MUON_HYPER),
    "optax.contrib.schedule_free_sgd": Formula(ScheduleFreeRule(second="none"), HyperParams()),
    "optax.contrib.schedule_free_adamw": Formula(ScheduleFreeRule(), HyperParams()),
    "optax.contrib.prodigy": Formula(ProdigyRule(correction="t"), PRODIGY_HYPER),
    "paper.prodigy": Formula(ProdigyRule(), PRODIGY_HYPER),
    "paper.adamp": Formula(AdamPRule(), HyperParams()),
    "optax.contrib.sophia": Formula(
        SophiaRule(used="old", correction="t", decay="decoupled"),
        SOPHIA_HYPER._replace(b1=0.965, eps=1e-8, weight_decay=1e-4),
    ),
    "paper.sophia": Formula(SophiaRule(), SOPHIA_HYPER),
    "paper.sophia_g": Formula(SophiaRule(hessian="squared gradient"), SOPHIA_HYPER._replace(gamma=0.05)),
    "paper.mars": Formula(MARS, HyperParams(b1=0.95, b2=0.99, weight_decay=1e-2)),
}
