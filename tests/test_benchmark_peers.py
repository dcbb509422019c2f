"""The benchmarks' peers: each does its job, and the float64 reference notices one that does a different job."""

import sys
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.cases.conv_ensemble import NETWORK
from benchmarks.jobs import reference
from benchmarks.jobs.definitions import (
    DeepNetwork,
    Dispatch,
    Ensemble,
    FreshProcess,
    OptimizerComparison,
    SettingSearch,
    Shuffle,
    TimeToAccuracy,
    Training,
    Updates,
)
from benchmarks.jobs.inputs import training_inputs
from benchmarks.jobs.setting_search import Searches, search_figures, split_rows
from benchmarks.peers import load_peer, peer_names, read_head
from benchmarks.peers._jax import all_cores
from benchmarks.peers._jax.python_loop import python_loop
from benchmarks.peers._jax.stages import Compiled
from benchmarks.peers.plain_jax.training import make_step

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]

TRAINING_JOBS = {
    "batches": Training((5, 8, 3), rows=64, batch=16, epochs=2),
    "all rows": Training((4, 6, 2), rows=64, batch=None, activation="tanh", loss="squared_error", epochs=4),
}
COMPILED = [  # each takes some seconds
    ("torch_compile", "naive"),
    ("torch_compile", "fast"),
    ("torch_compile", "CUDA graphs"),
    ("torch_func", "fast"),
    ("torch_func", "CUDA graphs"),
]
TRAINING_FORMS = [
    (name, form)
    for name in peer_names()
    for form in read_head(name).forms.get("training", ())
    if name != "limit" and (name, form) not in COMPILED  # the limit does no job
]


def load_or_skip(name):
    """Return a peer; skip the test if one of its packages is not installed."""
    if missing := read_head(name).missing:
        pytest.skip(f"needs {', '.join(missing)}")
    return load_peer(name)


@pytest.fixture(autouse=True)
def library_defaults():
    """Allow promotion, which the libraries rely on, and restore PyTorch's number of threads, which is global."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
    if torch := sys.modules.get("torch"):
        from benchmarks.peers._torch.device import ALL_THREADS

        torch.set_num_threads(ALL_THREADS)


@pytest.mark.parametrize("variant", TRAINING_JOBS)
@pytest.mark.parametrize(("name", "form"), TRAINING_FORMS)
def test_training_is_the_job_and_no_other(name, form, variant, monkeypatch):
    job = TRAINING_JOBS[variant]
    program = load_or_skip(name).training(job, form)
    assert program.units == job.steps
    state = program.call(program.state)
    program.block(state)
    assert program.error(state) <= 1
    train = reference.train
    different_jobs = [lambda job, inputs, rows: train(job._replace(rate=1.02 * job.rate), inputs, rows)]
    if job.batch is not None:
        different_jobs.append(lambda job, inputs, rows: train(job, inputs, rows[::-1]))
    for different_job in different_jobs:
        monkeypatch.setattr(reference, "train", different_job)
        assert program.error(state) > 1
    monkeypatch.setattr(reference, "train", train)
    state = program.call(state)
    program.block(state)
    assert program.error(state) > 1  # the second call continued


MEMBER = Training((5, 8, 3), rows=64, batch=16)
OTHER_JOBS = {
    "ensemble": Ensemble(MEMBER, 3),
    "conv_ensemble": Ensemble(NETWORK._replace(rows=8, batch=4), 2),
    "sweep": Ensemble(MEMBER, 2, pairs=((1e-3, 0.0), (3e-3, 1e-2))),
    "deep_network": DeepNetwork(3, width=5, batch=4),
    "updates": Updates("adam", 2, 64, 4),
    "dispatch": Dispatch(2, 3, 4),
}
OTHER_FORMS = [
    (name, kind, form)
    for name in peer_names()
    for kind, forms in read_head(name).forms.items()
    for form in forms
    if kind in OTHER_JOBS and name != "limit" and not form.endswith(("compiled", "graphs"))  # compilers take seconds
]


GRAPH_FORMS = [
    ("torch_compile", "training", "CUDA graphs"),
    ("torch_func", "training", "CUDA graphs"),
    ("torch_func", "sweep", "vmap CUDA graphs"),
]


@pytest.mark.parametrize(("name", "kind", "form"), GRAPH_FORMS)
def test_forms_for_cuda_graphs_do_the_same_without_graphs_on_a_cpu(name, kind, form, monkeypatch):
    train = getattr(load_or_skip(name), kind)
    job = TRAINING_JOBS["batches"] if kind == "training" else OTHER_JOBS[kind]
    with pytest.raises(ValueError, match="CUDA graphs need a GPU"):
        train(job, form)
    monkeypatch.setattr("benchmarks.peers._torch.device.require_cuda_graphs", lambda: None)
    do_and_continue(train(job, form))


def do_and_continue(program):
    state = program.call(program.state)
    program.block(state)
    assert program.error(state) <= 1
    state = program.call(state)
    program.block(state)
    assert program.error(state) > 1


@pytest.mark.parametrize(("name", "kind", "form"), OTHER_FORMS)
def test_other_jobs_are_done_and_continue(name, kind, form, monkeypatch):
    monkeypatch.setattr(all_cores, "make_cores_devices", lambda form: None)  # JAX already has eight devices here
    do_and_continue(getattr(load_or_skip(name), kind)(OTHER_JOBS[kind], form))


def test_members_are_sharded_over_as_many_devices_as_divide_them():
    x, shared = jnp.arange(6.0), jnp.ones(())
    has_members = (True, False)
    function, (placed, whole) = all_cores.shard_members("vmap on all cores", lambda x, y: x + y, has_members, x, shared)
    assert len(placed.sharding.device_set) == 6  # of eight
    assert placed.sharding.shard_shape(placed.shape) == (1,)
    assert (jax.jit(function)(placed, whole) == x + 1).all()
    assert all_cores.shard_members("vmap", function, has_members, x, shared) == (function, (x, shared))
    with pytest.raises(ValueError, match="members=1 cannot be split evenly over 2 to 8 devices"):
        all_cores.shard_members("map on all cores", lambda x: x, (True,), x[:1])


def test_members_need_more_than_one_device(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [None])
    with pytest.raises(ValueError, match="there is only one device"):
        all_cores.shard_members("map on all cores", lambda x: x, (True,), jnp.arange(6.0))


TO_HALF = TimeToAccuracy("digits", 0.5, epochs=6, folds=2, hidden=(16,), batch=64, rate=1e-2)
ACCURACY_FORMS = [(name, form) for name in peer_names() for form in read_head(name).forms.get("time_to_accuracy", ())]


@pytest.mark.parametrize(("name", "form"), ACCURACY_FORMS)
def test_a_target_is_reached_by_the_networks_that_are_returned(name, form):
    program = load_or_skip(name).time_to_accuracy(TO_HALF, form)
    state = program.call(program.state)
    assert program.error(state) <= 1
    figures = program.figures(state)
    assert (figures["runs"], figures["success"]) == (1, 1)
    assert figures["accuracy"] >= TO_HALF.target
    epochs, mean = state.ends[-1]
    better = np.asarray(state.accuracies) + 0.02
    wrong_states = {
        "the networks are less accurate": state._replace(accuracies=better, ends=((epochs, better.mean()),)),
        "the mean is not that of the folds": state._replace(ends=((epochs, mean + 0.01),)),
        "too many epochs": state._replace(ends=((TO_HALF.epochs + 1, mean),)),
    }
    for what, wrong_state in wrong_states.items():
        assert program.error(wrong_state) > 1, what
    second = program.call(state)
    assert program.figures(second)["runs"] == 2
    assert second.seed == 2


SEARCH = SettingSearch("digits", 4, (1, 2), hidden=(8,), batch=64, population=2, rows=200)
REGRESSION_SEARCH = SEARCH._replace(data="diabetes", outputs=1)
SEARCH_FORMS = [
    (name, form)
    for name in peer_names()
    for form in read_head(name).forms.get("setting_search", ())
    if not form.endswith("in processes")  # they import everything again
]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning" if find_spec("optuna") else "default")
@pytest.mark.parametrize("job", [SEARCH, REGRESSION_SEARCH], ids=lambda job: job.data)
@pytest.mark.parametrize(("name", "form"), SEARCH_FORMS)
def test_a_search_runs_all_trials_and_returns_the_network_with_the_loss_it_reports(name, form, job, monkeypatch):
    peer = load_or_skip(name)
    monkeypatch.setattr(all_cores, "make_cores_devices", lambda form: None)
    program = peer.setting_search(job, form)
    state = program.call(program.state)
    assert program.error(state) <= 1
    assert program.error(state._replace(trials=3)) > 1
    if state.layers is not None:
        assert program.error(state._replace(losses=(state.losses[0] + 0.01,))) > 1
    second = program.call(state)
    figures = program.figures(second)
    assert figures["searches"] == 2
    assert 0 < figures["loss"] < 5
    assert figures["epochs"] >= 4
    assert second.losses[0] != second.losses[1]


@pytest.mark.parametrize(
    "job", [OptimizerComparison("match"), OptimizerComparison("diagnosis"), FreshProcess("import")], ids=str
)
def test_comparisons_and_processes_are_checked(job):
    kind = "fresh_process" if isinstance(job, FreshProcess) else "optimizer_comparison"
    program = getattr(load_peer("ours"), kind)(job, read_head("ours").forms[kind][0])
    result = program.call(program.state)
    assert program.error(result) == 0
    if isinstance(job, OptimizerComparison):
        other_job = OptimizerComparison("diagnosis" if job.what == "match" else "match")
        assert load_peer("ours").optimizer_comparison(other_job, "compare").error(result) > 1


@pytest.mark.parametrize(
    ("mistake", "is_noticed"),
    [
        ({}, False),
        ({"rate": 1.02e-3}, True),
        ({"next_rows": True}, True),
        ({"loss": "squared_error"}, True),
        ({"b1": 0.8}, True),
        ({"b2": 0.99}, True),
    ],
)
def test_the_reference_notices_a_different_job(mistake, is_noticed):
    job = Training((5, 8, 3), rows=64, batch=16, epochs=2)
    inputs = training_inputs(job)
    optimizer = optax.adam(mistake.get("rate", job.rate), mistake.get("b1", 0.9), mistake.get("b2", 0.999))
    wrong_job = job._replace(loss=mistake.get("loss", job.loss))
    jitted = jax.jit(make_step(wrong_job, optimizer))

    def step(carry, rows):
        rows = (rows + 1) % job.rows if "next_rows" in mistake else rows
        y = inputs.y[rows] if wrong_job.loss == job.loss else np.eye(3, dtype=np.float32)[inputs.y[rows]]
        return jitted(carry, inputs.x[rows], y)[0]

    def to_arrays(carry):
        return [np.asarray(leaf) for leaf in jax.tree.leaves(carry[0])]

    params = jax.tree.map(jnp.asarray, inputs.layers)
    state = (params, optimizer.init(params))
    compiled = Compiled(jitted, stages={}, memory={})
    program = python_loop(job, inputs, step, state, to_arrays=to_arrays, compiled=compiled)
    assert (program.error(program.call(program.state)) > 1) == is_noticed


def test_rows_must_be_whole_epochs():
    job = TRAINING_JOBS["batches"]
    rows = np.zeros((job.steps, job.batch), int)
    with pytest.raises(ValueError, match="every row must be seen once in an epoch"):
        reference.training_error(job, training_inputs(job), rows, [])


def test_scikit_learn_refuses_two_classes():
    with pytest.raises(ValueError, match="no softmax of 2 outputs; expected 3 or more"):
        load_or_skip("scikit_learn").training(Training((4, 6, 2), rows=32, batch=8), "fast")


@pytest.mark.parametrize(
    ("name", "kind", "form", "job"),
    [
        ("plain_jax", "deep_network", "indexed", DeepNetwork(251)),
        ("plain_jax", "conv_ensemble", "vmap", Ensemble(NETWORK, 9)),
        ("torch_eager", "ensemble", "loop", Ensemble(MEMBER, 65)),
        ("torch_func", "deep_network", "compiled", DeepNetwork(51)),
    ],
)
def test_jobs_that_take_too_long_are_refused(name, kind, form, job):
    with pytest.raises(ValueError, match=r"at most \d+"):
        getattr(load_or_skip(name), kind)(job, form)


@pytest.mark.parametrize("name", peer_names())
def test_a_peer_has_what_its_head_says(name):
    head, peer = read_head(name), load_or_skip(name)
    assert (head.name, head.needs, head.forms) == (peer.NAME, peer.NEEDS, peer.FORMS)
    assert all(callable(getattr(peer, kind)) and forms for kind, forms in peer.FORMS.items())


SHUFFLE_FORMS = [(name, form) for name in peer_names() for form in read_head(name).forms.get("shuffle", ())]


@pytest.mark.parametrize(("name", "form"), SHUFFLE_FORMS)
def test_a_shuffle_has_every_row_once_and_differs_between_epochs(name, form):
    job = Shuffle(rows=512, batch=32)
    program = load_or_skip(name).shuffle(job, form)
    first = program.call(program.state)
    assert program.error(first) == 0
    states = (first, program.call(first))
    orders = [np.asarray(state[1] if isinstance(state, tuple) else state) for state in states]
    assert orders[0].shape == (16, 32)
    assert (orders[0] != orders[1]).mean() > 0.9


@pytest.mark.parametrize("rows", [np.arange(512), np.zeros(512, int)])
def test_rows_that_are_not_shuffled_are_noticed(rows):
    assert reference.shuffle_error(Shuffle(512, 32), rows.reshape(16, 32)) == np.inf


@pytest.mark.parametrize("data", ["digits", "breast_cancer", "wine", "diabetes"])
def test_rows_of_a_search_are_split_by_its_seed_and_standardised_by_the_rows_to_train_on(data):
    if data != "digits":
        pytest.importorskip("sklearn")
    job = SEARCH._replace(data=data, outputs=1 if data == "diabetes" else 10, rows=150)
    first, second = split_rows(job, 0), split_rows(job, 1)
    assert [len(part) for part in first] == [len(part) for part in second] == [90, 90, 30, 30, 30, 30]
    assert not np.array_equal(first.x, second.x)
    np.testing.assert_array_equal(first.test_x, split_rows(job, 0).test_x)
    rows = np.concatenate([first.x, first.held_out_x, first.test_x])
    assert len(np.unique(rows, axis=0)) == len(rows), "parts share rows"
    if data != "digits":
        np.testing.assert_allclose(first.x.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(first.x.std(0), 1, atol=1e-5)
    if data == "diabetes":
        np.testing.assert_allclose([first.y.mean(), first.y.std()], [0, 1], atol=1e-5)


def test_intervals_of_searches_are_those_of_the_mean():
    searches = Searches(4, (1.0, 2.0, 3.0, 6.0), 9, None, (0.5, 0.5, 0.5, 0.5), (10, 20, 30, 40))
    figures = search_figures(searches)
    half = 3.182446 * np.std([1, 2, 3, 6], ddof=1) / 2  # Student's t with 3 degrees of freedom
    np.testing.assert_allclose([figures["loss"], figures["loss ±"]], [3, half], rtol=1e-6)
    assert (figures["test loss"], figures["test loss ±"], figures["epochs"]) == (0.5, 0, 25)
