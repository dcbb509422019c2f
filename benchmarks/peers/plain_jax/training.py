"""JAX by hand: what an expert writes without a library but optax."""

from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.jobs.definitions import (
    Deepening,
    Dispatching,
    Ensemble,
    Inputs,
    Program,
    Shuffling,
    Starting,
    Training,
    depth_inputs,
    training_inputs,
)
from benchmarks.jobs.fresh_process import python
from benchmarks.jobs.python_loop import loop
from benchmarks.jobs.reference import ensemble_error, shuffling_error, training_error
from benchmarks.jobs.reference_depth import depth_error
from benchmarks.peers._jax import all_cores as shards
from benchmarks.peers._jax.dispatch import calls, zeros
from benchmarks.peers._jax.stages import compiled
from benchmarks.peers.plain_jax.lenet import convolved, one_by_one

NAME = "plain JAX"
NEEDS = ("jax", "optax")
FORMS = {
    "training": ("naive", "fast"),
    "ensemble": ("vmap", "map", "vmap on all cores", "map on all cores"),
    "conv_ensemble": ("vmap", "map on all cores", "loop"),
    "sweep": ("vmap", "vmap on all cores", "loop"),
    "depth": ("scan", "indexed", "unrolled list"),
    "shuffle": ("permutation",),
    "start": ("process",),
    "dispatch": ("jit",),
}

DEEP = 250  # blocks up to which indexing stacked parameters compiles within a minute; it is quadratic in the blocks
MANY = 8  # members of a convolutional ensemble


def training(job: Training, form: str) -> Program:
    """naive: a jitted step in a Python loop. fast: all epochs of a call as one scan, with a permutation in each."""
    inputs = training_inputs(job)
    optimizer = optax.adam(job.rate)
    params = jax.tree.map(jnp.asarray, inputs.layers)
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)
    carry = params, optimizer.init(params)
    step = step_of(job, optimizer)
    if form == "fast":
        return _scan(job, inputs, step, carry, x, y)
    jitted = jax.jit(step, donate_argnums=0)
    first = compiled(jitted, carry, x[: job.batch], y[: job.batch])

    def batch_step(carry: Any, rows: np.ndarray | None) -> Any:
        return jitted(carry, *((x, y) if rows is None else (inputs.x[rows], inputs.y[rows])))[0]

    return loop(job, inputs, batch_step, carry, _found, jax.block_until_ready, first.stages, first.memory)


def ensemble(job: Ensemble, form: str) -> Program:
    """The scan under `vmap`, or under `lax.map`; on all cores, each core has its share of the members."""
    shards.use_cores(form)
    inputs = training_inputs(job.training, job.members, own=job.own)
    optimizer = optax.adam(job.training.rate)
    params = jax.tree.map(jnp.asarray, inputs.layers)
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)
    epochs = epochs_of(job.training, step_of(job.training, optimizer))
    state = (params, jax.vmap(optimizer.init)(params)), jax.random.split(jax.random.key(1), job.members)
    rows = np.asarray(jax.vmap(partial(_first_rows, job.training))(state[1]))

    def members(state: Any, x: jax.Array, y: jax.Array) -> Any:
        if form.startswith("vmap"):
            axis = 0 if job.own else None
            return jax.vmap(epochs, in_axes=(0, axis, axis))(state, x, y)
        if job.own:
            return jax.lax.map(lambda member: epochs(*member), (state, x, y))
        return jax.lax.map(lambda one: epochs(one, x, y), state)

    function, (state, x, y) = shards.spread(form, members, (True, job.own, job.own), state, x, y)
    program = compiled(jax.jit(function, donate_argnums=0), state, x, y)
    return Program(
        state=state,
        call=lambda state: program.call(state, x, y)[0],
        block=jax.block_until_ready,
        error=lambda state: ensemble_error(job, inputs, rows, _found(state[0])),
        units=job.training.steps * job.members,
        stages=program.stages,
        memory=program.memory,
    )


def conv_ensemble(job: Ensemble, form: str) -> Program:
    """As `ensemble`. loop: a jitted step for every batch of every member.

    Raises:
      ValueError: for more than `MANY` members under `vmap`, each with filters of its own.
    """
    if form == "vmap" and job.members > MANY:
        raise ValueError(f"{job.members} members' filters under vmap take seconds a step, at most {MANY}")
    if form != "loop":
        return ensemble(job, form)
    optimizer = optax.adam(job.training.rate)
    return one_by_one(job, step_of(job.training, optimizer), optimizer)


def sweep(job: Ensemble, form: str) -> Program:
    """The scan with rate and decay as arguments.

    vmap: over all pairs; on all cores, each core has its share. loop: compiled once, for one pair after another. All
    have the same keys and parameters; in the loop each member is a state of its own.
    """
    shards.use_cores(form)
    each = job.training
    inputs = training_inputs(each, job.members)
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)
    pairs = jnp.asarray(job.pairs, jnp.float32)

    def epochs(state: Any, pair: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        return epochs_of(each, step_of(each, optax.adamw(pair[0], weight_decay=pair[1])))(state, x, y)

    params = jax.tree.map(jnp.asarray, inputs.layers)
    keys = jax.random.split(jax.random.key(1), job.members)
    rows = np.asarray(jax.vmap(partial(_first_rows, each))(keys))
    state: Any = (params, jax.vmap(optax.adamw(each.rate).init)(params)), keys
    stacked: Any
    if form != "loop":
        members = jax.vmap(epochs, in_axes=(0, 0, None, None))
        function, (state, pairs, x, y) = shards.spread(form, members, (True, True, False, False), state, pairs, x, y)
        program = compiled(jax.jit(function, donate_argnums=0), state, pairs, x, y)
        call = lambda state: program.call(state, pairs, x, y)[0]  # noqa: E731
        stacked = lambda state: state  # noqa: E731
    else:
        state = [jax.tree.map(itemgetter(i), state) for i in range(job.members)]
        program = compiled(jax.jit(epochs, donate_argnums=0), state[0], pairs[0], x, y)
        call = lambda state: [program.call(one, pair, x, y)[0] for one, pair in zip(state, apart, strict=True)]  # noqa: E731
        apart = list(pairs)
        stacked = lambda state: jax.tree.map(lambda *parts: jnp.stack(parts), *state)  # noqa: E731
    return Program(
        state=state,
        call=call,
        block=jax.block_until_ready,
        error=lambda state: ensemble_error(job, inputs, rows, _found(stacked(state)[0])),
        units=each.steps * job.members,
        stages=program.stages,
        memory=program.memory,
    )


def depth(job: Deepening, form: str) -> Program:
    """scan: over stacked parameters. indexed: `w[i]` of them in a Python loop. unrolled list: a loop over arrays.

    Raises:
      ValueError: for more than `DEEP` blocks, indexed.
    """
    if form == "indexed" and job.blocks > DEEP:
        raise ValueError(f"{job.blocks} blocks, indexed, compile for minutes, at most {DEEP}")
    inputs = depth_inputs(job)
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)
    params: Any = jax.tree.map(jnp.asarray, inputs.layers[0])
    if form == "unrolled list":
        params = list(zip(*params, strict=True))

    def block(z: jax.Array, layer: Any) -> tuple[jax.Array, None]:
        w, b = layer
        return z + jax.nn.relu(z @ w + b), None

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        if form == "scan":
            return ((jax.lax.scan(block, x, params)[0] - y) ** 2).sum(-1).mean()
        layers = params if form == "unrolled list" else [(params[0][i], params[1][i]) for i in range(job.blocks)]
        for layer in layers:
            x, _ = block(x, layer)
        return ((x - y) ** 2).sum(-1).mean()

    def steps(params: Any, x: jax.Array, y: jax.Array) -> Any:
        def step(params: Any, _: None) -> tuple[Any, jax.Array]:
            value, grads = jax.value_and_grad(loss)(params, x, y)
            return jax.tree.map(lambda p, g: p - job.rate * g, params, grads), value

        return jax.lax.scan(step, params, length=job.steps)

    def error(params: Any) -> float:
        w, b = [np.stack(parts) for parts in zip(*params, strict=True)] if form == "unrolled list" else params
        return depth_error(job, np.asarray(w), np.asarray(b))

    program = compiled(jax.jit(steps, donate_argnums=0), params, x, y)
    return Program(
        state=params,
        call=lambda params: program.call(params, x, y)[0],
        block=jax.block_until_ready,
        error=error,
        units=job.steps,
        stages=program.stages,
        memory=program.memory,
    )


def shuffle(job: Shuffling, form: str) -> Program:
    """`jax.random.permutation` of an epoch."""

    def rows(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        key, draw = jax.random.split(key)
        return key, jax.random.permutation(draw, job.rows).reshape(-1, job.batch)

    program = compiled(jax.jit(rows), jax.random.key(1))
    return Program(
        state=(jax.random.key(1), None),
        call=lambda state: program.call(state[0]),
        block=jax.block_until_ready,
        error=lambda state: shuffling_error(job, np.asarray(state[1])),
        units=job.steps,
        stages=program.stages,
        memory=program.memory,
    )


def start(job: Starting, form: str) -> Program:
    """What we are built on, imported.

    Raises:
      ValueError: for more than an import.
    """
    if job.what != "import":
        raise ValueError("no command to train with")
    return python("-c", "import jax, optax")


def dispatch(job: Dispatching, form: str) -> Program:
    """A jitted function of the tree."""
    return calls(job, lambda arrays: [array + 1 for array in arrays], zeros(job))


def step_of(job: Training, optimizer: optax.GradientTransformation) -> Any:
    """`((params, opt_state), x, y) -> (…, loss)`."""

    def step(carry: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        params, opt_state = carry
        loss, grads = jax.value_and_grad(lambda p: loss_of(job, forward(job, p, x), y))(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    return step


def epochs_of(job: Training, step: Any) -> Any:
    """`((carry, key), x, y) -> (…, losses)`: the epochs of one call."""

    def epoch(x: jax.Array, y: jax.Array, carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        if job.batch is None:
            return step(carry, x, y)
        return jax.lax.scan(lambda c, rows: step(c, x[rows], y[rows]), carry, _order(job, key))

    def epochs(state: Any, x: jax.Array, y: jax.Array) -> Any:
        carry, key = state
        key, draw = jax.random.split(key)
        carry, losses = jax.lax.scan(partial(epoch, x, y), carry, jax.random.split(draw, job.epochs))
        return (carry, key), losses

    return epochs


def forward(job: Training, layers: Any, x: jax.Array) -> jax.Array:
    """The network."""
    if job.images:
        layers, x = convolved(layers, x)
    for w, b in layers[:-1]:
        x = (jax.nn.relu if job.activation == "relu" else jnp.tanh)(x @ w + b)
    w, b = layers[-1]
    return x @ w + b


def loss_of(job: Training, prediction: jax.Array, target: jax.Array) -> jax.Array:
    """The mean over the batch."""
    if job.loss == "cross_entropy":
        return optax.softmax_cross_entropy_with_integer_labels(prediction, target).mean()
    return ((prediction - target) ** 2).sum(-1).mean()


def _scan(job: Training, inputs: Inputs, step: Any, carry: Any, x: jax.Array, y: jax.Array) -> Program:
    key = jax.random.key(1)
    rows = None if job.batch is None else np.asarray(_first_rows(job, key))
    program = compiled(jax.jit(epochs_of(job, step), donate_argnums=0), (carry, key), x, y)
    return Program(
        state=(carry, key),
        call=lambda state: program.call(state, x, y)[0],
        block=jax.block_until_ready,
        error=lambda state: training_error(job, inputs, rows, _found(state[0])),
        units=job.steps,
        stages=program.stages,
        memory=program.memory,
    )


def _order(job: Training, key: jax.Array) -> jax.Array:
    return jax.random.permutation(key, job.rows).reshape(-1, job.batch or job.rows)


def _first_rows(job: Training, key: jax.Array) -> jax.Array:
    """The rows (steps, batch) of the first call."""
    draws = jax.random.split(jax.random.split(key)[1], job.epochs)
    return jnp.concatenate([_order(job, draw) for draw in draws])


def _found(carry: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(carry[0])]
