"""Several processes as one program: the result and files of one; when one is killed, the others say so and end."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nnjax
from nnjax.train import checkpoint, processes

ROOT = Path(nnjax.__file__).parents[1]
PROGRAM = """
import sys
import jax
import numpy as np
from nnjax import losses, nn, optim, train
from nnjax.train import checkpoint, processes

index, count, port, axis, epochs, out, cache = sys.argv[1:]
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
if int(count) > 1:
    processes.start(f"127.0.0.1:{port}", int(count), int(index))
x = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
y = (np.arange(64) % 3).astype(np.int32)
mesh = jax.make_mesh((jax.device_count(),), (axis,), axis_types=(jax.sharding.AxisType.Auto,))
members = 3 if axis == "members" else None  # and a fourth that fills up
run = train.Run(nn.mlp([8], 3, norm="batch"), losses.cross_entropy, optim.adam(3e-3), 8)
result = train.fit(
    run, (x, y), validation=(x[:20], y[:20]), epochs=float(epochs), members=members, mesh=mesh, out=out, resume=True,
    save_every=0, chunk_steps=8, progress=False, callbacks=[lambda ts, record: print(record["step"], flush=True)],
)
history = [{name: np.asarray(value).tolist() for name, value in record.items()} for record in result.history]
print("result", checkpoint.digest((result.losses, history)), np.atleast_2d(result.losses)[0].tolist())
"""


class Children(list):
    """Processes that do not outlive the test."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for child in self:
            child.kill()
            child.wait()
            child.stdout.close()
            child.stderr.close()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(children, count, axis, epochs, out, cache):
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)  # one device for each process
    for index in range(count):
        arguments = [sys.executable, "-c", PROGRAM, index, count, port, axis, epochs, out, cache]
        children.append(
            subprocess.Popen(
                list(map(str, arguments)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
            )
        )
    return children[-count:]


def results(started):
    """What each process says of its result."""
    found = []
    for child in started:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err[-3000:]
        found.append(out.splitlines()[-1])
        assert found[-1].startswith("result "), out
    return found


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Programs that are compiled once for all the processes."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def one(tmp_path_factory, cache):
    """What one process gives."""
    out = tmp_path_factory.mktemp("one")
    with Children() as children:
        return {
            axis: (results(start(children, 1, axis, 3, out / axis, cache))[0], out / axis)
            for axis in ("members", "batch")
        }


def numbers(said):
    return eval(said.split(" ", 2)[2])


def test_members_over_two_processes_have_the_bits_of_one(one, cache, tmp_path):
    with Children() as children:
        two = results(start(children, 2, "members", 3, tmp_path, cache))
    said, out = one["members"]
    assert two == [said, said]
    files, others = checkpoint.files(tmp_path), checkpoint.files(out)
    assert files[-1].name == others[-1].name == "step-000000000024.safetensors"
    assert files[-1].read_bytes() == others[-1].read_bytes()


def test_a_batch_over_two_processes_is_that_of_one_to_rounding(one, cache, tmp_path):
    with Children() as children:
        two = results(start(children, 2, "batch", 3, tmp_path, cache))
    assert two[0] == two[1]
    for a, b in zip(numbers(two[0])[:8], numbers(one["batch"][0])[:8], strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    assert len(numbers(two[0])) == 24
    assert [path.name for path in checkpoint.files(tmp_path)][-1] == "step-000000000024.safetensors"


@pytest.mark.parametrize(("axis", "victim"), [("members", 0), ("members", 1), ("batch", 0), ("batch", 1)])
def test_one_killed_ends_the_other_and_the_run_goes_on(axis, victim, cache, tmp_path):
    with Children() as children:
        pair = start(children, 2, axis, 100_000, tmp_path, cache)
        while int(pair[0].stdout.readline() or 10**9) < 24 * 8:
            pass
        pair[victim].send_signal(signal.SIGKILL)
        clock = time.perf_counter()
        other = pair[1 - victim]
        _, err = other.communicate(timeout=60)
        seconds = time.perf_counter() - clock
    print(f"{axis}, process {victim} killed: the other ended after {seconds:.1f} s")
    assert seconds < 60
    assert other.returncode == 1, err
    assert err.rstrip().splitlines()[-1] == (
        "RuntimeError: fit: another process ended or cannot be reached: start all processes again; "
        f"resume=True goes on from the last checkpoint in {tmp_path}"
    )
    reached = checkpoint.step_of(checkpoint.files(tmp_path)[-1])
    assert reached >= 8

    epochs = reached // 8 + 2
    with Children() as children:
        went_on = results(start(children, 2, axis, epochs, tmp_path, cache))
        undisturbed = results(start(children, 2, axis, epochs, tmp_path / "undisturbed", cache))
    assert went_on == undisturbed
    files = [checkpoint.files(folder)[-1] for folder in (tmp_path, tmp_path / "undisturbed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_mistakes_are_told():
    with pytest.raises(ValueError, match=r"coordinator must be host:port, got 'localhost'"):
        processes.start("localhost", 2, 0)
    with pytest.raises(ValueError, match=r"index of the process must be in 0 … 1, got 2"):
        processes.start("localhost:1234", 2, 2)
    with pytest.raises(ValueError, match=r"index of the process must be in 0 … 1, got -1"):
        processes.start("localhost:1234", 2, -1)


def test_other_errors_stay_what_they_are():
    with pytest.raises(ValueError, match=r"^connection$"), processes.lost_told(Path("out")):
        raise ValueError("connection")  # one process has no others


def test_alone_nothing_is_agreed_upon():
    assert processes.agree(7, (True, False)) == (7, (True, False))
