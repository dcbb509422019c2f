"""For each rule of the contract, one optimizer that violates only it; correct optimizers violate none."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.example_libraries import optimizers as triples
from optax import contrib

from nnjax import optim
from nnjax.optcheck.calling.adapters import adapt
from nnjax.optcheck.contract.contract_checks import contract_violations
from nnjax.optcheck.trace.deadline import Deadline, TimeLimitError

tree_map = jax.tree.map
NAMES = "adam sgd adamw rmsprop lion nadam radam adabelief yogi adagrad"

RIGHT = {f"optax.{name}": getattr(optax, name) for name in NAMES.split()}
RIGHT |= {f"optim.{name}": getattr(optim, name) for name in optim.__all__ if name not in ("averaged", "params_ema")}
RIGHT |= {f"triples.{name}": getattr(triples, name) for name in ("adam", "rmsprop")}
RIGHT |= {
    "triples.momentum": lambda rate: triples.momentum(rate, 0.9),
    "scheduled": lambda rate: optax.adam(optax.cosine_decay_schedule(rate, 10)),
    "schedule free": contrib.schedule_free_adamw,
    "nested chain": lambda rate: optax.chain(optax.clip(1.0), optax.chain(optax.scale_by_adam()), optax.scale(-rate)),
}
NORMS = {  # one NaN reaches all that the norm is of
    "lamb": (optax.lamb, "layer/w"),
    "lars": (optax.lars, "layer/w"),
    "adafactor": (optax.adafactor, "layer/w"),
    "clipped": (
        lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        "layer/b, layer/w, temperature",
    ),
}


@pytest.fixture(autouse=True)
def default_promotion(strict_promotion):
    """Optimizers of others are looked at as they are used."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def look(optimizer, **arguments):
    """What is found, without the note that objects and NumPy code have in common."""
    found = contract_violations(adapt(optimizer, **arguments), Deadline(None))
    return [violation for violation in found if violation.rule != "runs eagerly only"]


def runs_eagerly(optimizer):
    found = contract_violations(adapt(optimizer), Deadline(None))
    return [violation.severity for violation in found if violation.rule == "runs eagerly only"] == ["note"]


def only(found):
    assert len(found) == 1, [str(violation) for violation in found]
    return found[0]


@pytest.mark.parametrize("name", RIGHT)
def test_right_optimizers_break_nothing(name):
    assert look(RIGHT[name](1e-2)) == []


@pytest.mark.parametrize("name", NORMS)
def test_norms_spread_nan_and_break_nothing_else(name):
    make, where = NORMS[name]
    found = only(look(make(1e-2)))
    assert (found.rule, found.where, found.severity) == ("NaN spreads", where, "violation")
    assert "norms, means and maxima" in found.remedy


def test_injected_hyperparameters_take_the_dtype_of_one_leaf():
    found = look(optax.inject_hyperparams(optax.adam)(learning_rate=1e-2))
    assert {violation.rule for violation in found} == {"mixed dtypes"}


def test_moments_in_bfloat16_are_no_hidden_state():
    found = look(optax.adam(1e-2, mu_dtype=jnp.bfloat16))
    assert not {"jit", "frozen under jit", "lax.scan", "jax.vmap"} & {violation.rule for violation in found}


def test_integer_counters_under_bfloat16_are_explained():
    found = look(counted(lambda t, g: -g / (1 - 0.9**t), zero=jnp.int32(0)))
    assert "b1**t" in only(found).remedy
    assert only(found).rule == "bfloat16"


def momentum(step, start=lambda p: tree_map(jnp.zeros_like, p)):
    """A pair around a step `(gradient, moment) -> (update, moment)` of leaves."""

    def update(grads, state, params):
        both = tree_map(step, grads, state)
        return jax.tree.transpose(jax.tree.structure(grads), jax.tree.structure((0, 0)), both)

    return start, update


def counted(rule, zero=0):
    """A pair with a counter: `rule(t, gradient) -> update`."""

    def update(grads, state, params=None):
        t = state["t"] + 1
        return tree_map(lambda g: rule(t, g), grads), {"t": t}

    return lambda params: {"t": zero}, update


def test_python_numbers_in_the_state_are_right():
    assert look(counted(lambda t, g: (-1e-2 / t) * g)) == []
    assert look(momentum(lambda g, m: (-1e-2 * (0.9 * m + g), 0.9 * m + g))) == []


def test_step_functions_are_right_with_and_without_state():
    def step(params, grads, state):
        moment = tree_map(lambda m, g: 0.9 * m + g, state, grads)
        return tree_map(lambda p, m: p - 1e-2 * m, params, moment), moment

    assert look(step, init=lambda params: tree_map(jnp.zeros_like, params)) == []
    assert look(lambda params, grads, state: (tree_map(lambda p, g: p - 1e-2 * g, params, grads), None)) == []


class Moment:
    """Right but for jit: the moment is kept on self, the arrays are NumPy's."""

    def __init__(self):
        self.moment = None

    def step(self, params, grads):
        zeros = tree_map(np.zeros_like, grads)
        self.moment = tree_map(lambda m, g: np.float32(0.9) * m + g, self.moment or zeros, grads)
        return tree_map(lambda p, m: np.subtract(p, np.float32(1e-2) * m), params, self.moment)


def numpy_step(params, grads, state):
    return tree_map(lambda p, g: np.subtract(p, np.float32(1e-2) * g), params, grads), state


def test_numpy_code_is_not_held_to_jit():
    for optimizer in (Moment(), InPlace(), Frozen(), GradsFirst(), numpy_step):
        assert look(optimizer) == []
        assert runs_eagerly(optimizer)


def test_a_function_in_jax_is_held_to_jit():
    def step(params, grads, state):
        return tree_map(lambda p, g: p - 1e-2 * (g if jnp.sum(g) > 0 else 2 * g), params, grads), state

    assert only(look(step)).rule == "jit"
    assert not runs_eagerly(step)


class InPlace:
    def step(self, params, grads):
        for key, value in params.items():
            if isinstance(value, dict):
                self.step(value, grads[key])
            elif value is not None:
                params[key] = value - 1e-2 * grads[key]


class Frozen(Moment):
    def step(self, params, grads):
        moment = self.moment or tree_map(jnp.zeros_like, grads)
        self.moment = tree_map(lambda m, g: 0.9 * m + g, moment, grads)
        return tree_map(lambda p, m: p - 1e-2 * m, params, self.moment)


class GradsFirst(Frozen):
    def step(self, grads, params):
        return super().step(params, grads)


class Stateless:
    def step(self, params, grads):
        return tree_map(lambda p, g: p - 1e-2 * g, params, grads)


def test_objects_without_state_are_right():
    assert look(Stateless()) == []


def frozen_closure():
    kept = {}

    def init(params):
        kept["m"] = tree_map(jnp.zeros_like, params)
        return ()

    def update(grads, state, params):
        moment = tree_map(lambda m, g: 0.9 * m + g, kept["m"], grads)
        kept["m"] = moment
        return tree_map(lambda m: -1e-2 * m, moment), ()

    return init, update


def cached_constant():
    kept = {}

    def update(grads, state, params):
        if "rate" not in kept:
            kept["rate"] = jnp.sqrt(jnp.float32(1e-4))
        return tree_map(lambda g: -kept["rate"] * g, grads), ()

    return lambda params: (), update


def noisy():
    rng = np.random.default_rng(0)
    return counted(lambda t, g: -1e-2 * g * float(rng.normal()))


def pair(update, start=()):
    return lambda params: start, update


def stepping(rule):
    """A pair without state: `rule(gradient, parameter) -> update`."""
    return pair(lambda grads, state, params: (tree_map(rule, grads, params), state))


def state_becomes(start, change):
    def update(grads, state, params):
        return tree_map(jnp.negative, grads), {"t": change(state["t"])}

    return lambda params: {"t": start}, update


class Same:
    """A static field that is never the same, but looks it."""

    def __repr__(self):
        return "Same"


@jax.tree_util.register_pytree_node_class
class Static:
    def __init__(self, field):
        self.field = field

    def tree_flatten(self):
        return (), self.field

    @classmethod
    def tree_unflatten(cls, field, children):
        return cls(field)


def grows(grads, state, params):
    return tree_map(jnp.negative, grads), state | {"t": jnp.ones(())}


def changes_state(grads, state, params):
    state["t"] += 1
    return tree_map(jnp.negative, grads), dict(state)


def changes_grads(grads, state, params):
    grads["layer"] = tree_map(lambda g: g.at[...].mul(2), grads["layer"])  # which NumPy's arrays have not
    return tree_map(jnp.negative, grads), state


def changes_arrays(g, p):
    g += 0.1 * p  # NumPy's in place, JAX's not
    return -g


def lacks_one(grads, state, params):
    return {"layer": grads["layer"]}, state


def lacks_none(grads, state, params):
    return {name: -g if name != "layer" else tree_map(jnp.negative, g) for name, g in grads.items()}, state


def mean_of_all(grads, state, params):
    scale = sum(jnp.mean(p**2) for p in jax.tree.leaves(params))
    return tree_map(lambda g: -g * scale.astype(g.dtype), grads), state


def one_dtype(grads, state, params):
    dtype = jax.tree.leaves(grads)[0].dtype
    return tree_map(lambda g: -g.astype(dtype), grads), state


def loops(t, g):
    for _ in range(t):
        g = 0.9 * g
    return g


def calls_back(g, p):
    return jax.pure_callback(np.negative, jax.ShapeDtypeStruct(g.shape, g.dtype), g, vmap_method=None)


def is_other_when_traced(g, p):
    return -2 * g if isinstance(g, jax.core.Tracer) else -g


class Noisy:
    def step(self, params, grads):
        noise = float(np.random.default_rng().normal())
        return tree_map(lambda p, g: p - noise * g, params, grads)


class ChangesGrads:
    def step(self, grads, params):
        for g in jax.tree.leaves(grads):
            if isinstance(g, np.ndarray):
                np.multiply(g, 2, out=g)
        return tree_map(lambda p, g: p - 1e-2 * g, params, grads)


class Widens:
    def step(self, params, grads):
        return tree_map(lambda p, g: p - np.float64(1e-2) * g, params, grads)


def fails(g, p):
    raise ValueError("no such luck\nand more")


ALL = "grads/layer/b, grads/layer/w, grads/temperature"
WRONG = {  # (optimizer, rule, where, part of what it got, part of the remedy)
    "fails": (stepping(fails), "eager", "", "ValueError: no such luck", "see the"),
    "lacks an update": (pair(lacks_one), "updates", "temperature", "nothing", "one array for each"),
    "wide": (stepping(lambda g, p: jnp.atleast_1d(-g)), "updates", "temperature", "float32[1]", "one array for each"),
    "signs": (stepping(lambda g, p: jnp.sign(g).astype("int8")), "updates", "layer/b", "int8[3] (and 2 more)", "dtype"),
    "counts in float": (state_becomes(0, lambda t: t + 1.0), "state", "t", "float32[] weakly typed", "in init"),
    "weak": (state_becomes(0, lambda t: t + jnp.int32(1)), "state", "t", "int32[]", "jnp.int32"),
    "strong": (state_becomes(jnp.int32(0), lambda t: 0), "state", "t", "int32[] weakly typed", "jnp.int32"),
    "shape": (state_becomes(jnp.zeros(()), lambda t: jnp.zeros(2)), "state", "t", "float32[2]", "shapes"),
    "grows": (pair(grows, {}), "state", "t", "float32[]", "in init"),
    "static counter": (state_becomes(Static(0), lambda t: Static(t.field + 1)), "state", "", "[1]", "static fields"),
    "static object": (state_becomes(Static(Same()), lambda t: Static(Same())), "recompilation", "", "3 comp", "static"),
    "if": (counted(lambda t, g: g if t > 1 else -g), "jit", "", "TracerBoolConversionError", "jnp.where or lax.cond"),
    "np": (counted(lambda t, g: -g / float(np.sqrt(t))), "jit", "", "TracerArrayConversionError", "use jnp.*"),
    "float": (counted(lambda t, g: -g / float(t)), "jit", "", "ConcretizationTypeError", "float()"),
    "range": (counted(loops), "jit", "", "TracerIntegerConversionError", "lax.fori_loop"),
    "mask": (stepping(lambda g, p: -g * p[p > 0].sum()), "jit", "", "NonConcreteBooleanIndexError", "jnp.where"),
    "tracers": (stepping(is_other_when_traced), "jit", "layer/b", "at step 1 under jit", "through jnp functions"),
    "callback": (stepping(calls_back), "jax.vmap", "", "NotImplementedError", "see the"),
    "closure": (frozen_closure(), "frozen under jit", "layer/b", "at step 2 under jit", "put them into the state"),
    "cache": (cached_constant(), "leaked tracer", "", "UnexpectedTracerError", "closures or caches"),
    "noise": (noisy(), "not deterministic", "layer/b", "different updates", "a key in the state"),
    "noisy object": (Noisy(), "not deterministic", "layer/b", "different updates", "a key in the state"),
    "changes state": ((lambda params: {"t": 0}, changes_state), "mutation", "state/t", "changed", "new containers"),
    "changes grads": (pair(changes_grads), "mutation", "grads/layer/b, grads/layer/w", "changed", "new containers"),
    "changes arrays": (stepping(changes_arrays), "mutation", ALL, "changed", "new containers"),
    "object changes arrays": (ChangesGrads(), "mutation", ALL, "changed", "new containers"),
    "object widens": (Widens(), "updates", "layer/b", "float64[3] (and 2 more)", "dtype"),
    "None": (pair(lacks_none), "None leaves", "", "TypeError: bad operand", "see the"),
    "max of nothing": (stepping(lambda g, p: -g * jnp.max(p)), "empty leaves", "", "ValueError: zero-size", "see the"),
    "mean of nothing": (pair(mean_of_all), "empty leaves", "layer/b", "NaN", "from means"),
    "wide rate": (
        stepping(lambda g, p: -g * jnp.float32(0.1)),
        "bfloat16",
        "layer/b",
        "updates of float32[3]",
        "dtype",
    ),
    "one dtype": (pair(one_dtype), "mixed dtypes", "temperature", "updates of bfloat16[]", "dtype"),
    "norm": (stepping(lambda g, p: -g / jnp.linalg.norm(g)), "NaN spreads", "layer/w", "NaN", "leaf by leaf"),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_wrong_optimizer_breaks_one_promise(name):
    optimizer, rule, where, got, remedy = WRONG[name]
    found = only(look(optimizer))
    severity = "note" if rule == "mixed dtypes" else "violation"
    assert (found.rule, found.where, found.severity) == (rule, where, severity)
    assert got in found.got
    assert remedy in found.remedy
    assert str(found).count("\n") == 0


def test_two_causes_are_two_violations():
    def update(grads, state, params):
        t = state["t"] + 1.0
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads)))
        return tree_map(lambda g: -g if norm > 0 else g, grads), {"t": t}

    assert [violation.rule for violation in look((lambda params: {"t": 0}, update))] == ["state", "jit"]


def test_what_a_norm_over_all_leaves_spreads_is_named_leaf_by_leaf():
    norm = lambda tree: jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(tree)))  # noqa: E731
    found = only(
        look(pair(lambda grads, state, params: (tree_map(lambda g: -g / norm(grads).astype(g.dtype), grads), state)))
    )
    assert (found.rule, found.where) == ("NaN spreads", "layer/b, layer/w, temperature")


def test_objects_that_know_no_none_get_a_note():
    class Leafwise:
        def step(self, params, grads):
            return {name: self.of(p, grads[name]) for name, p in params.items()}

        def of(self, p, g):
            return self.step(p, g) if isinstance(p, dict) else p - 1e-2 * g

    found = only(look(Leafwise()))
    assert (found.rule, found.severity) == ("None leaves", "note")


def test_a_violation_is_one_sentence():
    found = only(look(state_becomes(0, lambda t: t + 1.0)))
    assert str(found).startswith(
        "state (t): got float32[] weakly typed, expected int32[] weakly typed; create the whole"
    )


def test_the_deadline_is_kept_and_no_violation():
    with pytest.raises(TimeLimitError, match="longer than"):
        contract_violations(adapt(optax.sgd(1e-2)), Deadline(-1))

    def overdue(g, p):
        raise TimeLimitError("optcheck: over")

    with pytest.raises(TimeLimitError, match="over"):
        look(stepping(overdue))


@pytest.mark.parametrize("wrong", [None, "mutation", "not deterministic"])
def test_torch(wrong):
    torch = pytest.importorskip("torch")

    class Changed(torch.optim.SGD):
        def step(self):
            for p in self.param_groups[0]["params"]:
                if wrong == "mutation":
                    p.grad.mul_(2)
                if wrong == "not deterministic":
                    p.grad = p.grad * torch.randn(())
            super().step()

    found = [violation.rule for violation in look(functools.partial(Changed, lr=1e-2, momentum=0.9))]
    assert (wrong in found) if wrong else found == []


NUMPY_SGD = """
import numpy as np


def step(params, grads, state):
    norm = sum(np.sum(g**2) for g in grads.values())
    scale = 1.0 / max(norm, 1.0)
    return {name: p - 0.01 * scale * grads[name] for name, p in params.items()}, state
"""


@pytest.mark.parametrize(("more", "rule"), [("", "runs eagerly only"), ("import jax\n", "jit")])
def test_numpy_code_with_a_python_condition_is_not_held_to_jit(more, rule, tmp_path, monkeypatch):
    name = f"numpy_sgd_{len(more)}"
    (tmp_path / f"{name}.py").write_text(more + NUMPY_SGD)
    monkeypatch.syspath_prepend(tmp_path)
    step = importlib.import_module(name).step
    violations = contract_violations(adapt(step), Deadline(None))
    assert [violation.rule for violation in violations if violation.rule != "NaN spreads"] == [rule]
