"""What is measured: every peer does the job that it is given, and one that does another is found out."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import peers
from benchmarks.cases.conv_ensemble import NETWORK
from benchmarks.jobs import reference
from benchmarks.jobs.definitions import (
    Comparing,
    Deepening,
    Dispatching,
    Ensemble,
    Optimizing,
    Reaching,
    Shuffling,
    Starting,
    Training,
    training_inputs,
)
from benchmarks.jobs.python_loop import loop
from benchmarks.peers import plain_jax
from benchmarks.peers._jax import all_cores as shards

JOBS = {
    "batches": Training((5, 8, 3), rows=64, batch=16, epochs=2),
    "all rows": Training((4, 6, 2), rows=64, batch=None, activation="tanh", loss="squared_error", epochs=4),
}
COMPILED = {("torch_compile", "naive"), ("torch_compile", "fast"), ("torch_func", "fast")}  # some seconds each
FORMS = [
    (name, form)
    for name in peers.names()
    for form in peers.about(name).forms.get("training", ())
    if name != "limit" and (name, form) not in COMPILED  # the limit does no job
]


def load(name):
    """A peer; skips where a package of its is not installed."""
    if missing := peers.about(name).missing:
        pytest.skip(f"needs {', '.join(missing)}")
    return peers.peer(name)


# PyTorch warns of its own code
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Libraries count on JAX's promotion. PyTorch's threads, of which its peers set the number, are the process's."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(peers.peer("torch_eager").THREADS)


@pytest.mark.parametrize("variant", JOBS)
@pytest.mark.parametrize(("name", "form"), FORMS)
def test_it_does_the_job_and_no_other(name, form, variant, monkeypatch):
    job = JOBS[variant]
    program = load(name).training(job, form)
    assert program.units == job.steps
    state = program.call(program.state)
    program.block(state)
    assert program.error(state) <= 1
    expected = reference.train
    others = [lambda job, inputs, rows: expected(job._replace(rate=1.02 * job.rate), inputs, rows)]
    if job.batch is not None:
        others.append(lambda job, inputs, rows: expected(job, inputs, rows[::-1]))
    for other in others:
        monkeypatch.setattr(reference, "train", other)
        assert program.error(state) > 1
    monkeypatch.setattr(reference, "train", expected)
    state = program.call(state)
    program.block(state)
    assert program.error(state) > 1  # it went on


MEMBER = Training((5, 8, 3), rows=64, batch=16)
OTHER_JOBS = {
    "ensemble": Ensemble(MEMBER, 3),
    "conv_ensemble": Ensemble(NETWORK._replace(rows=16, batch=8), 2),
    "sweep": Ensemble(MEMBER, 2, pairs=((1e-3, 0.0), (3e-3, 1e-2))),
    "depth": Deepening(3, width=5, batch=4),
    "optimizer": Optimizing("adam", 2, 64, 4),
    "dispatch": Dispatching(2, 3, 4),
}
OTHERS = [
    (name, kind, form)
    for name in peers.names()
    for kind, forms in peers.about(name).forms.items()
    for form in forms
    if kind in OTHER_JOBS and name != "limit" and not form.endswith("compiled")  # compilers take seconds
]


@pytest.mark.parametrize(("name", "kind", "form"), OTHERS)
def test_it_does_other_jobs_too_and_goes_on(name, kind, form, monkeypatch):
    monkeypatch.setattr(shards, "use_cores", lambda form: None)  # the tests have started JAX, with eight devices
    program = getattr(load(name), kind)(OTHER_JOBS[kind], form)
    state = program.call(program.state)
    program.block(state)
    assert program.error(state) <= 1
    state = program.call(state)
    program.block(state)
    assert program.error(state) > 1


def test_members_are_shared_out_to_as_many_devices_as_divide_them():
    x, shared = jnp.arange(6.0), jnp.ones(())
    function, (placed, whole) = shards.spread("vmap on all cores", lambda x, y: x + y, (True, False), x, shared)
    assert len(placed.sharding.device_set) == 6  # of eight
    assert placed.sharding.shard_shape(placed.shape) == (1,)
    assert (jax.jit(function)(placed, whole) == x + 1).all()
    assert shards.spread("vmap", function, (True, False), x, shared) == (function, (x, shared))
    with pytest.raises(ValueError, match="1 members cannot be shared out to 8 devices"):
        shards.spread("map on all cores", lambda x: x, (True,), x[:1])


REACHING = Reaching("digits", 0.5, epochs=6, folds=2, hidden=(16,), batch=64, rate=1e-2)


@pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name in peers.names() for form in peers.about(name).forms.get("accuracy", ())]
)
def test_a_target_is_reached_with_the_networks_that_are_shown(name, form):
    program = load(name).accuracy(REACHING, form)
    state = program.call(program.state)
    assert program.error(state) <= 1
    found = program.figures(state)
    assert (found["runs"], found["success"]) == (1, 1)
    assert found["accuracy"] >= REACHING.target
    better = np.asarray(state.accuracies) + 0.02
    ran = (*state.runs[:-1], (state.runs[-1][0], better.mean()))
    assert program.error(state._replace(accuracies=better, runs=ran)) > 1  # the networks are not as good
    more = (*state.runs[:-1], (state.runs[-1][0], state.runs[-1][1] + 0.01))
    assert program.error(state._replace(runs=more)) > 1  # than its folds have in the mean
    too_long = (*state.runs[:-1], (REACHING.epochs + 1, state.runs[-1][1]))
    assert program.error(state._replace(runs=too_long)) > 1
    assert program.figures(program.call(state))["runs"] == 2  # with a seed of its own


@pytest.mark.parametrize("job", [Comparing("match"), Comparing("diagnosis"), Starting("import")], ids=str)
def test_an_answer_and_a_start_are_what_was_asked_for(job):
    kind = "start" if isinstance(job, Starting) else "comparison"
    program = getattr(peers.peer("ours"), kind)(job, peers.about("ours").forms[kind][0])
    found = program.call(program.state)
    assert program.error(found) == 0
    if isinstance(job, Comparing):
        other = Comparing("diagnosis" if job.what == "match" else "match")
        assert getattr(peers.peer("ours"), kind)(other, "compare").error(found) > 1


@pytest.mark.parametrize(
    ("wrong", "found_out"),
    [
        ({}, False),
        ({"rate": 1.02e-3}, True),
        ({"next_rows": True}, True),
        ({"loss": "squared_error"}, True),
        ({"b1": 0.8}, True),
        ({"b2": 0.99}, True),
    ],
)
def test_a_peer_that_does_something_else_is_found_out(wrong, found_out):
    job = Training((5, 8, 3), rows=64, batch=16, epochs=2)
    inputs = training_inputs(job)
    optimizer = optax.adam(wrong.get("rate", job.rate), wrong.get("b1", 0.9), wrong.get("b2", 0.999))
    given = job._replace(loss=wrong.get("loss", job.loss))
    step = jax.jit(plain_jax.step_of(given, optimizer))

    def one(carry, rows):
        rows = (rows + 1) % job.rows if "next_rows" in wrong else rows
        y = inputs.y[rows] if given.loss == job.loss else np.eye(3, dtype=np.float32)[inputs.y[rows]]
        return step(carry, inputs.x[rows], y)[0]

    def found(carry):
        return [np.asarray(leaf) for leaf in jax.tree.leaves(carry[0])]

    params = jax.tree.map(jnp.asarray, inputs.layers)
    program = loop(job, inputs, one, (params, optimizer.init(params)), found, jax.block_until_ready)
    assert (program.error(program.call(program.state)) > 1) == found_out


def test_rows_that_are_no_epochs_are_refused():
    job = JOBS["batches"]
    rows = np.zeros((job.steps, job.batch), int)
    with pytest.raises(ValueError, match="every row must be seen once in an epoch"):
        reference.training_error(job, training_inputs(job), rows, [])


def test_scikit_learn_refuses_what_it_does_in_another_way():
    with pytest.raises(ValueError, match="no softmax of 2 outputs; expected 3 or more"):
        load("scikit_learn").training(Training((4, 6, 2), rows=32, batch=8), "fast")


@pytest.mark.parametrize(
    ("name", "kind", "form", "job"),
    [
        ("plain_jax", "depth", "indexed", Deepening(251)),
        ("plain_jax", "conv_ensemble", "vmap", Ensemble(NETWORK, 9)),
        ("torch_eager", "ensemble", "loop", Ensemble(MEMBER, 65)),
        ("torch_func", "depth", "compiled", Deepening(51)),
    ],
)
def test_what_takes_too_long_is_refused(name, kind, form, job):
    with pytest.raises(ValueError, match=r"at most \d+"):
        getattr(load(name), kind)(job, form)


@pytest.mark.parametrize("name", peers.names())
def test_a_peer_has_what_its_head_says(name):
    about, peer = peers.about(name), load(name)
    assert (about.name, about.needs, about.forms) == (peer.NAME, peer.NEEDS, peer.FORMS)
    assert all(callable(getattr(peer, kind)) and forms for kind, forms in peer.FORMS.items())


ORDERS = [(name, form) for name in peers.names() for form in peers.about(name).forms.get("shuffle", ())]


@pytest.mark.parametrize(("name", "form"), ORDERS)
def test_an_order_has_every_row_once_and_another_in_the_next_epoch(name, form):
    job = Shuffling(rows=512, batch=32)
    program = load(name).shuffle(job, form)
    first = program.call(program.state)
    assert program.error(first) == 0
    orders = [np.asarray(state[1] if isinstance(state, tuple) else state) for state in (first, program.call(first))]
    assert orders[0].shape == (16, 32)
    assert (orders[0] != orders[1]).mean() > 0.9


@pytest.mark.parametrize("rows", [np.arange(512), np.zeros(512, int)])
def test_an_order_that_is_none_is_found_out(rows):
    assert reference.shuffling_error(Shuffling(512, 32), rows.reshape(16, 32)) == np.inf
