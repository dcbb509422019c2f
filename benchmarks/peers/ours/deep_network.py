"""Train a deep residual network, whose blocks are repeated by `nn.repeat` or listed in `nn.serial`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.jobs.definitions import DeepNetwork
from benchmarks.jobs.inputs import deep_network_inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference_deep_network import deep_network_error
from benchmarks.peers._jax.stages import compile_in_stages
from benchmarks.peers.ours.training import initial_state, to_arrays
from nnjax import data, losses, nn, optim, train
from nnjax.debug import count_flops
from nnjax.types import TrainState


def deep_network(job: DeepNetwork, form: str) -> Program:
    """Run a jitted `Run.steps` with one of three networks.

    The form "repeat" scans over the blocks. "remat" also rematerialises activations, which saves memory. "unrolled"
    applies the blocks with `nn.serial`.
    """
    block = nn.residual(nn.dense(job.width), jax.nn.relu)
    nets = {
        "repeat": lambda: nn.repeat(job.blocks, block),
        "remat": lambda: nn.repeat(job.blocks, nn.remat(block)),
        "unrolled": lambda: nn.serial(*(job.blocks * [block])),
    }
    run = train.Run(nets[form](), losses.squared_error, optim.sgd(job.rate), batch_size=None)
    inputs = deep_network_inputs(job)
    examples = data.Data(jnp.asarray(inputs.x), jnp.asarray(inputs.y))
    layers = list(zip(*inputs.layers[0], strict=True)) if form == "unrolled" else inputs.layers
    ts = initial_state(run, layers, jax.random.key(1), examples)
    compiled = compile_in_stages(jax.jit(partial(run.steps, n=job.steps), donate_argnums=0), ts, examples)

    def error(ts: TrainState) -> float:
        params = to_arrays(ts)
        w, b = (np.stack(params[::2]), np.stack(params[1::2])) if form == "unrolled" else params
        return deep_network_error(job, w, b)

    parameters = job.blocks * job.width * (job.width + 1)
    return Program(
        state=ts,
        call=lambda ts: compiled.call(ts, examples)[0],
        block=jax.block_until_ready,
        error=error,
        units=job.steps,
        stages=compiled.stages,
        memory=compiled.memory,
        # remat repeats operations that other peers execute once, so its operations are not counted
        flops=0 if form == "remat" else count_flops(run.step, ts, examples).total,
        bytes=4 * (2 * parameters + 2 * job.batch * job.width),
    )
