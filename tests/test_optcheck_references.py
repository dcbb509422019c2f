"""References of optax and PyTorch with unusual numbers and options are recognised by their arguments."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from optcheck_runs import SCRIPT

from nnjax import optcheck
from nnjax.optcheck.calling.factories import build
from nnjax.optcheck.reading import stored_arrays
from nnjax.optcheck.rules.library_arguments import formula_of
from nnjax.optcheck.search.budget import Budget
from nnjax.optcheck.search.diagnosis import target_of
from nnjax.optcheck.search.rule_search import identify_formula
from nnjax.optcheck.trace.deadline import Deadline
from nnjax.optcheck.trace.traces import trace


def torch_of(name, **arguments):
    torch = pytest.importorskip("torch")
    return functools.partial(getattr(torch.optim, name), **arguments)


def decayed(weight, *parts):
    return optax.chain(optax.add_decayed_weights(weight), *parts)


REFERENCES = {
    "rmsprop": lambda: optax.rmsprop(1e-2, decay=0.95, eps=1e-4, eps_in_sqrt=False),
    "rmsprop, v₀": lambda: optax.rmsprop(1e-2, decay=0.99, initial_scale=1.0),
    "rmsprop, corrected": lambda: optax.rmsprop(1e-2, decay=0.95, bias_correction=True),
    "rmsprop, centred, momentum": lambda: optax.rmsprop(1e-2, 0.9, 1e-4, centered=True, momentum=0.8),
    "rmsprop, nesterov": lambda: optax.rmsprop(1e-2, decay=0.95, momentum=0.8, nesterov=True),
    "adabelief": lambda: optax.adabelief(1e-3, eps=1e-8, eps_root=1e-6),
    "adam, ε_root": lambda: optax.adam(3e-4, b1=0.8, b2=0.95, eps=1e-5, eps_root=1e-6),
    "nadamw": lambda: optax.nadamw(3e-4, b2=0.95, weight_decay=0.1),
    "adamaxw": lambda: optax.adamaxw(3e-4, b2=0.95, weight_decay=0.1),
    "amsgrad": lambda: optax.amsgrad(2e-3, b2=0.99),
    "lamb": lambda: optax.lamb(3e-3, b2=0.99, weight_decay=0.1, eps=1e-8),
    "lars": lambda: optax.lars(0.1, weight_decay=1e-4, momentum=0.8, trust_coefficient=0.02),
    "lion": lambda: optax.lion(1e-4, b1=0.95, b2=0.98, weight_decay=0.1),
    "yogi": lambda: optax.yogi(1e-2, b1=0.8),
    "radam": lambda: optax.radam(1e-3, b2=0.99),
    "novograd": lambda: optax.novograd(1e-3, b1=0.95, b2=0.5),
    "adagrad": lambda: optax.adagrad(0.1, initial_accumulator_value=1.0, eps=1e-6),
    "adadelta": lambda: optax.adadelta(0.5, rho=0.95, eps=1e-8, weight_decay=0.01),
    "sgd, L2, nesterov": lambda: decayed(5e-4, optax.sgd(0.1, momentum=0.8, nesterov=True)),
    "centralised, clipped adamw": lambda: optax.chain(
        optax.centralize(), optax.clip_by_global_norm(0.5), optax.adamw(3e-4, weight_decay=0.1)
    ),
    "clipped step": lambda: optax.chain(optax.scale_by_adam(), optax.clip(0.7), optax.scale(-0.01)),
    "ema": lambda: optax.chain(optax.ema(0.8, debias=True), optax.scale(-1e-2)),
    "ascent": lambda: optax.chain(optax.trace(0.7), optax.scale(1e-2)),
    "torch.SGD": lambda: torch_of("SGD", lr=0.1, momentum=0.8, dampening=0.1, weight_decay=1e-3, maximize=True),
    "torch.RMSprop": lambda: torch_of("RMSprop", lr=0.01, alpha=0.95, momentum=0.8, centered=True, weight_decay=1e-3),
    "torch.Adam": lambda: torch_of("Adam", lr=0.01, betas=(0.8, 0.99), weight_decay=1e-3, amsgrad=True),
    "torch.AdamW": lambda: torch_of("AdamW", lr=0.01, eps=1e-6, weight_decay=0.2),
    "torch.Adagrad": lambda: torch_of("Adagrad", lr=0.01, lr_decay=0.03, initial_accumulator_value=0.2),
    "torch.Adadelta": lambda: torch_of("Adadelta", lr=0.5, rho=0.95, weight_decay=0.01),
    "torch.RAdam": lambda: torch_of("RAdam", lr=0.5, weight_decay=0.01, decoupled_weight_decay=True),
}


@pytest.fixture(autouse=True)
def usual_modes():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("name", REFERENCES)
def test_the_arguments_of_a_reference_give_its_formula(name):
    optimizer = REFERENCES[name]()
    target = target_of(trace(build(optimizer), SCRIPT, "float64", Deadline(None)), SCRIPT, "float64")
    guess = formula_of(optimizer)
    assert guess is not None
    assert [attempt.formula.rule for attempt in identify_formula(target, guess, Budget(0))] == [guess.rule]


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.rprop(0.1),
        optax.adamw(0.1, mask={"w": True}),
        optax.chain(optax.scale(2.0), optax.adam(0.1)),
        optax.chain(optax.adam(0.1), optax.adam(0.1)),
        optax.sgd(lambda count: 0.1),
        optax.GradientTransformation(lambda params: (), lambda grads, state, params=None: (grads, state)),
        lambda params: params,
        None,
    ],
)
def test_other_references_give_a_formula_only_if_it_is_proved(optimizer):
    formula = formula_of(optimizer)
    assert formula is None or formula.rule.decay == "decoupled"  # the mask is not read, so the guess will be refuted


def test_a_mistake_beside_a_reference_with_many_options_is_named():
    def step(params, grads, state):
        mean, square, velocity = state or [dict.fromkeys(grads, 0.0) for _ in range(3)]
        mean = {k: 0.9 * mean[k] + 0.1 * g for k, g in grads.items()}
        square = {k: 0.9 * square[k] + 0.1 * g**2 for k, g in grads.items()}
        step = {k: g / (square[k] + mean[k] ** 2 + 1e-4) ** 0.5 for k, g in grads.items()}
        velocity = {k: 0.8 * velocity[k] - 0.01 * d for k, d in step.items()}
        return {k: p + velocity[k] for k, p in params.items()}, [mean, square, velocity]

    reference = optax.rmsprop(1e-2, decay=0.9, eps=1e-4, centered=True, momentum=0.8)
    report = optcheck.compare(step, reference, init=lambda params: None)
    assert [cause.id for cause in report.causes] == ["second-centered-plus"]


def test_an_error_of_the_reference_says_that_it_is_the_references():
    def update(grads, state, params=None):
        if any(leaf.ndim > 3 for leaf in jax.tree.leaves(grads)) and state > 3:
            raise RuntimeError("only a few steps")
        return grads, state + 1

    flaky = optax.GradientTransformation(lambda params: 0, update)
    with pytest.raises(RuntimeError, match="only a few steps") as raised:
        optcheck.compare(optax.sgd(0.1), flaky)
    assert "raised by the reference" in raised.value.__notes__[0]


def test_states_may_hold_keys_and_tensors_that_numpy_lacks():
    state = {"key": jax.random.key(0), "m": jnp.ones(3)}
    assert [name for name, _ in stored_arrays._arrays("state", state, 3, set())] == ["state/m"]
    torch = pytest.importorskip("torch")
    tensors = [torch.ones(3, dtype=dtype) for dtype in (torch.bfloat16, torch.float32, torch.int64)]
    assert [name for name, _ in stored_arrays._arrays("state", tensors, 3, set())] == ["state/0", "state/1"]
    report = optcheck.compare(optax.sgd(0.1, 0.9), optax.noisy_sgd(0.1, key=jax.random.key(0)))
    assert "cause unknown" in str(report)
