"""Train many networks: dense networks, convolutional networks, and sweeps over hyper-parameters."""

from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.jobs.definitions import Ensemble
from benchmarks.jobs.inputs import training_inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import ensemble_error
from benchmarks.peers._jax import all_cores
from benchmarks.peers._jax.stages import compile_in_stages
from benchmarks.peers.plain_jax.lenet import train_members_in_turn
from benchmarks.peers.plain_jax.training import first_rows, make_epochs, make_step, to_arrays

MOST_CONVOLUTIONAL = 8  # maximum number of members under vmap


def ensemble(job: Ensemble, form: str) -> Program:
    """Train the members under `vmap` or `lax.map`; "on all cores" distributes them over the cores.

    Raises:
      ValueError: if the form is "on all cores" and there is only one device or members cannot be split evenly.
    """
    all_cores.make_cores_devices(form)
    inputs = training_inputs(job.training, job.members, own_data=job.own_data)
    optimizer = optax.adam(job.training.rate)
    params = jax.tree.map(jnp.asarray, inputs.layers)
    x, y = jnp.asarray(inputs.x), jnp.asarray(inputs.y)
    epochs = make_epochs(job.training, make_step(job.training, optimizer))
    state = (params, jax.vmap(optimizer.init)(params)), jax.random.split(jax.random.key(1), job.members)
    rows = np.asarray(jax.vmap(partial(first_rows, job.training))(state[1]))

    def members(state: Any, x: jax.Array, y: jax.Array) -> Any:
        if form.startswith("vmap"):
            axis = 0 if job.own_data else None
            return jax.vmap(epochs, in_axes=(0, axis, axis))(state, x, y)
        if job.own_data:
            return jax.lax.map(lambda member: epochs(*member), (state, x, y))
        return jax.lax.map(lambda member: epochs(member, x, y), state)

    has_members = (True, job.own_data, job.own_data)
    function, (state, x, y) = all_cores.shard_members(form, members, has_members, state, x, y)
    compiled = compile_in_stages(jax.jit(function, donate_argnums=0), state, x, y)
    return Program(
        state=state,
        call=lambda state: compiled.call(state, x, y)[0],
        block=jax.block_until_ready,
        error=lambda state: ensemble_error(job, inputs, rows, to_arrays(state[0])),
        units=job.training.steps * job.members,
        stages=compiled.stages,
        memory=compiled.memory,
    )


def conv_ensemble(job: Ensemble, form: str) -> Program:
    """Train like `ensemble` or, in the form "loop", call a jitted step for each batch of each member.

    Raises:
      ValueError: if there are more than `MOST_CONVOLUTIONAL` members under `vmap`, where separate filters are slow.
    """
    if form == "vmap" and job.members > MOST_CONVOLUTIONAL:
        raise ValueError(
            f"under vmap, {job.members} members with their own filters take seconds for a step; "
            f"at most {MOST_CONVOLUTIONAL} are measured"
        )
    if form != "loop":
        return ensemble(job, form)
    optimizer = optax.adam(job.training.rate)
    return train_members_in_turn(job, make_step(job.training, optimizer), optimizer)


def sweep(job: Ensemble, form: str) -> Program:
    """Train all members in a program that takes learning rate and weight decay as arguments.

    The form "vmap" runs all pairs under `vmap`; "on all cores" distributes them over the cores. "loop" calls one
    program for each pair in turn. All forms use the same keys and initial parameters.

    Raises:
      ValueError: see `ensemble`.
    """
    if form == "loop":
        return _sweep_in_turn(job)
    all_cores.make_cores_devices(form)
    x, y, pairs, state, error = _sweep_parts(job)
    members = jax.vmap(partial(_sweep_epochs, job), in_axes=(0, 0, None, None))
    has_members = (True, True, False, False)
    function, (state, pairs, x, y) = all_cores.shard_members(form, members, has_members, state, pairs, x, y)
    compiled = compile_in_stages(jax.jit(function, donate_argnums=0), state, pairs, x, y)
    return Program(
        state=state,
        call=lambda state: compiled.call(state, pairs, x, y)[0],
        block=jax.block_until_ready,
        error=error,
        units=job.training.steps * job.members,
        stages=compiled.stages,
        memory=compiled.memory,
    )


def _sweep_in_turn(job: Ensemble) -> Program:
    x, y, pairs, state, error = _sweep_parts(job)
    member_pairs = list(pairs)
    states = [jax.tree.map(itemgetter(i), state) for i in range(job.members)]
    jitted = jax.jit(partial(_sweep_epochs, job), donate_argnums=0)
    compiled = compile_in_stages(jitted, states[0], pairs[0], x, y)
    return Program(
        state=states,
        call=lambda states: [
            compiled.call(member, pair, x, y)[0] for member, pair in zip(states, member_pairs, strict=True)
        ],
        block=jax.block_until_ready,
        error=lambda states: error(jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)),
        units=job.training.steps * job.members,
        stages=compiled.stages,
        memory=compiled.memory,
    )


def _sweep_epochs(job: Ensemble, state: Any, pair: jax.Array, x: jax.Array, y: jax.Array) -> Any:
    """Run the epochs of one call for one pair of learning rate and weight decay."""
    step = make_step(job.training, optax.adamw(pair[0], weight_decay=pair[1]))
    return make_epochs(job.training, step)(state, x, y)


def _sweep_parts(job: Ensemble) -> tuple[jax.Array, jax.Array, jax.Array, Any, Any]:
    """Return x, y, the pairs (members, 2), the stacked state of all members, and a function that checks a state."""
    inputs = training_inputs(job.training, job.members)
    params = jax.tree.map(jnp.asarray, inputs.layers)
    keys = jax.random.split(jax.random.key(1), job.members)
    rows = np.asarray(jax.vmap(partial(first_rows, job.training))(keys))
    state = (params, jax.vmap(optax.adamw(job.training.rate).init)(params)), keys

    def error(state: Any) -> float:
        return ensemble_error(job, inputs, rows, to_arrays(state[0]))

    return jnp.asarray(inputs.x), jnp.asarray(inputs.y), jnp.asarray(job.pairs, jnp.float32), state, error
