"""Ensembles on the command line: what is written, what is said, and that it is what the members say."""

import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from runs import SMALL, nnjax, process, read_json, succeed, with_warnings
from safetensors.numpy import load_file
from sklearn.datasets import load_diabetes, load_digits

from nnjax import data, metrics, nn, train
from nnjax.cli import history as history_records
from nnjax.cli import run_folder, weights_file
from nnjax.cli.config import make_net

DRAWN = (*SMALL, "--plots")
FORMAT = r"[\d.]+ ± [\d.]+ \(mean ± sd\), min [\d.]+, median [\d.]+, max [\d.]+"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    images = load_digits()
    np.savez(folder / "digits.npz", x=images.images, y=images.target)
    frame = load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "progression"})
    frame.to_csv(folder / "diabetes.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def digits(files):
    """Three networks on the digits, in a process of its own, on as many devices as there are cores."""
    path = files / "ensemble"
    return path, process("train", "digits", "--members", 3, "--out", path, *DRAWN)


@pytest.fixture(scope="module")
def diabetes(files):
    """Three networks of regression."""
    path = files / "regression"
    ended = succeed(
        "train", files / "diabetes.csv", "--target", "progression", "--members", 3, "--learning-rate", 0.03,
        "--out", path, *DRAWN,
    )  # fmt: skip
    return path, ended


def outputs(path, x):
    """What each member says, one after the other: (members, rows, outputs)."""
    config, table = run_folder.load_config(path)
    net = make_net(config, len(table.classes) or 1)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x[:1])
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct((config.members, *a.shape), a.dtype), shapes)
    params, state = weights_file.load_weights(path / run_folder.WEIGHTS, *shapes)
    members = [jax.tree.map(lambda a, m=m: a[m], (params, state)) for m in range(config.members)]
    return jnp.stack([net.apply(*member, x, train=False)[0] for member in members])


def test_an_ensemble_writes_all_files(digits):
    path, ended = digits
    assert ended.code == 0, ended
    pictures = {"confusion", "curves", "reliability", "spread", "ensemble_size", "rejection"}
    pictures |= {"uncertain", "mistakes", "first_layer"}
    names = {"config.json", "table.json", "metrics.csv", "result.json", "weights.safetensors", "receipt.json"}
    names |= {"report.html"}
    assert {file.name for file in path.iterdir()} == names | {f"{name}.png" for name in pictures} | {"checkpoints"}
    assert read_json(path / "config.json")["members"] == 3
    assert {len(leaf) for leaf in load_file(path / "weights.safetensors").values()} == {3}


def test_the_scores_are_those_of_the_averaged_probabilities(digits):
    path, ended = digits
    test, result = data.load("digits").test, read_json(path / "result.json")
    each = outputs(path, test.x)
    average = jnp.log(jax.nn.softmax(each).mean(0))
    assert result["test"]["accuracy"] == pytest.approx(float(metrics.accuracy(average, test.y)))
    assert result["test"]["nll"] == pytest.approx(float(metrics.nll(average, test.y)), rel=1e-5)
    accuracies = [float(metrics.accuracy(one, test.y)) for one in each]
    assert [member["accuracy"] for member in result["members"]] == pytest.approx(accuracies)
    assert len(set(accuracies)) > 1
    assert result["test"]["nll"] < np.mean([member["nll"] for member in result["members"]])  # Jensen
    parts = result["uncertainty"]
    assert parts["total"] == pytest.approx(parts["aleatoric"] + parts["epistemic"])
    assert 0 < parts["epistemic"] < parts["total"] < np.log(10)
    assert re.search(f"members' accuracy {FORMAT}", ended.out)
    assert re.search(f"members' NLL {FORMAT}", ended.out)
    assert f"members' accuracy {np.mean(accuracies):.4f} ± {np.std(accuracies, ddof=1):.4f}" in ended.out
    assert f"min {min(accuracies):.4f}, median {np.median(accuracies):.4f}, max {max(accuracies):.4f}" in ended.out
    assert f"test accuracy {result['test']['accuracy']:.4f}" in ended.out
    assert ended.out.count("(averaged prediction of 3)") == 1
    assert f"mean uncertainty {parts['total']:.4f} nats = {parts['aleatoric']:.4f} aleatoric" in ended.out
    assert "3 networks, strategy map" in ended.out
    assert re.match(r"epoch 2/2  mean of \d+ networks: loss \d", ended.err.splitlines()[-1])


def test_metrics_are_a_row_for_each_member_and_epoch(digits):
    path, _ = digits
    table = pd.read_csv(path / "metrics.csv")
    assert table[["member", "epoch"]].to_numpy().tolist() == [[m, e] for m in range(3) for e in (1, 2)]
    assert table["validation_accuracy"].between(0.1, 1).all()
    assert table["loss"].nunique() == 6
    assert table.notna().all(axis=None)


def test_members_spread_over_devices_are_lone_runs(digits, tmp_path):
    """Bit for bit, with the i-th of the keys that the seed's key is split into."""
    path, _ = digits
    found = []
    fit = train.fit

    def lone(run, data, *, key, members, **rest):
        assert members is None
        found.append(fit(run, data, key=jax.random.split(key, 3)[1], members=None, **rest))
        return found[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "fit", lone)
        succeed("train", "digits", "--out", tmp_path / "run", *SMALL)
    lone_weights, all_weights = (load_file(p / "weights.safetensors") for p in (tmp_path / "run", path))
    for name, leaf in lone_weights.items():
        np.testing.assert_array_equal(all_weights[name][1], leaf, err_msg=name)


def test_predict_averages_the_probabilities(files, digits, tmp_path):
    path, _ = digits
    ended = succeed("predict", path, files / "digits.npz", "--out", tmp_path / "p.csv")
    assert "1,797 predictions" in ended.out
    predicted = pd.read_csv(tmp_path / "p.csv")
    assert list(predicted) == ["y", *(f"p({i})" for i in range(10)), "epistemic"]
    each = jax.nn.softmax(outputs(path, jnp.asarray(load_digits().images.reshape(-1, 64) / 16, jnp.float32)))
    p = np.asarray(each.mean(0), float)
    np.testing.assert_allclose(predicted.filter(like="p("), p, atol=1e-6)
    assert (predicted["y"] == p.argmax(1)).all()
    each = np.asarray(each, float)
    mutual = -(p * np.log(p)).sum(-1) + (each * np.log(each)).sum(-1).mean(0)
    np.testing.assert_allclose(predicted["epistemic"], mutual, atol=1e-5)


def test_a_regression_averages_and_says_how_far_members_differ(files, diabetes, tmp_path):
    path, ended = diabetes
    pictures = {"predictions", "residuals", "importance", "spread", "curves"}
    assert {f"{name}.png" for name in pictures} == {file.name for file in path.glob("*.png")}
    succeed("predict", path, files / "diabetes.csv", "--out", tmp_path / "p.csv")
    predicted, frame = pd.read_csv(tmp_path / "p.csv"), pd.read_csv(files / "diabetes.csv")
    assert list(predicted) == ["progression", "sd"]
    _, table = run_folder.load_config(path)
    each = np.asarray(outputs(path, jnp.asarray(table.features(frame))))[..., 0] * table.target_std + table.target_mean
    np.testing.assert_allclose(predicted["progression"], each.mean(0), rtol=1e-4)
    np.testing.assert_allclose(predicted["sd"], each.std(0), rtol=1e-2, atol=1e-3)
    _, test = data.split_rows(frame["progression"].to_numpy(), 0.2, stratify=False)
    errors = predicted["progression"][test] - frame["progression"][test]
    result = read_json(path / "result.json")
    assert result["test"]["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-4)
    assert result["uncertainty"]["sd"] == pytest.approx(predicted["sd"][test].mean(), rel=1e-3)
    errors = each[1][test] - frame["progression"][test]
    assert result["members"][1]["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-4)
    assert re.search(f"members' R² {FORMAT}", ended.out)
    assert re.search(f"members' RMSE {FORMAT}", ended.out)
    assert f"mean standard deviation of the members' predictions {result['uncertainty']['sd']:.4g}\n" in ended.out


def test_a_member_that_diverged_is_left_out_and_said(files, tmp_path, monkeypatch):
    fit = train.fit

    def diverged(*arguments, **settings):
        result = fit(*arguments, **settings)
        bad = jax.tree.map(lambda a: a.at[1].set(jnp.nan), result.ts.params)
        steps = np.where(np.arange(3) == 1, 7, -1)
        return result._replace(ts=result.ts._replace(params=bad), diverged=steps)

    monkeypatch.setattr(train, "fit", diverged)
    ended = succeed("train", "digits", "--members", 3, "--out", tmp_path / "run", *DRAWN)
    monkeypatch.undo()
    assert "left out of the average: members that diverged, 1\n" in ended.out
    assert "(averaged prediction of 2)" in ended.out
    result = read_json(tmp_path / "run" / "result.json")
    assert [member["diverged"] for member in result["members"]] == [None, 7, None]
    assert result["left_out"] == [1]
    test = data.load("digits").test
    average = jnp.log(jax.nn.softmax(outputs(tmp_path / "run", test.x)[np.array([0, 2])]).mean(0))
    assert result["test"]["nll"] == pytest.approx(float(metrics.nll(average, test.y)), rel=1e-5)
    assert "nan" not in ended.out
    succeed("predict", tmp_path / "run", files / "digits.npz")
    assert pd.read_csv(tmp_path / "run" / "predictions.csv").notna().all(axis=None)
    (tmp_path / "run" / "result.json").write_text("{}")
    ended = nnjax("predict", tmp_path / "run", files / "digits.npz")
    assert ended.code == 2
    assert "result.json is damaged: content lacks the entry 'seconds'" in ended.err
    (tmp_path / "run" / "result.json").unlink()
    assert "an unfinished run: result.json is missing" in nnjax("predict", tmp_path / "run", files / "digits.npz").err


def test_where_all_members_diverge_it_is_said_and_nothing_breaks(files, tmp_path):
    hot = ("--optimizer", "sgd", "--learning-rate", 1e30, "--norm", "none")
    ended = with_warnings("train", "digits", "--members", 2, "--out", tmp_path / "run", *DRAWN, *hot)
    assert ended.code == 1, ended
    assert re.search("warning network 0 diverged: the loss of step [0-9]+ is (nan|inf). A smaller", ended.err)
    assert f"--clip 1 may help; nnjax replay {tmp_path / 'run'} finds the cause\n" in ended.err
    assert "all 2 members diverged: there is no network to test" in ended.out
    assert "accuracy" not in ended.out
    assert not list((tmp_path / "run").glob("*.png"))
    result = read_json(tmp_path / "run" / "result.json")
    assert (result["left_out"], result["test"]) == ([0, 1], None)
    assert [member["accuracy"] for member in result["members"]] == [None, None]
    read_json(tmp_path / "run" / "receipt.json")
    ended = nnjax("predict", tmp_path / "run", files / "digits.npz")
    assert ended.code == 2
    assert "cannot predict, because the training of all its members diverged" in ended.err


def test_one_member_is_an_ensemble_of_one(files, tmp_path):
    ended = succeed("train", "digits", "--members", 1, "--out", tmp_path / "run", *DRAWN)
    assert re.search(r"members' accuracy [\d.]+ \(mean\), min", ended.out)
    assert "averaged" not in ended.out
    assert not (tmp_path / "run" / "spread.png").exists()
    succeed("predict", tmp_path / "run", files / "digits.npz")
    assert (pd.read_csv(tmp_path / "run" / "predictions.csv")["epistemic"] == 0).all()


@pytest.mark.parametrize("members", [None, 3])
def test_patience_keeps_the_best_network_and_says_so(tmp_path, monkeypatch, members):
    results = []
    fit = train.fit
    monkeypatch.setattr(train, "fit", lambda *a, **k: results.append(fit(*a, **k)) or results[0])
    many = () if members is None else ("--members", members)
    ended = succeed("train", "digits", "--out", tmp_path / "run", *SMALL, "--epochs", 100, "--patience", 1, *many)
    best = results[0].best
    assert np.all(results[0].stopped)
    assert np.all(best.step < results[0].ts.step)
    params, state = weights_file.load_weights(tmp_path / "run" / "weights.safetensors", best.params, best.state)
    jax.tree.map(np.testing.assert_array_equal, (params, state), (best.params, best.state))
    result = read_json(tmp_path / "run" / "result.json")
    if members is None:
        assert (result["best_step"], result["stopped"]) == (int(best.step), True)
        score = float(jnp.mean(jnp.argmax(nn_outputs(params, state), -1) == data.load("digits").test.y))
        assert result["test"]["accuracy"] == pytest.approx(score)
        assert re.search(
            "\nstopped early; the network with the lowest validation loss, from epoch [0-9]+, is tested", ended.out
        )
    else:
        assert [member["best_step"] for member in result["members"]] == np.asarray(best.step).tolist()
        assert re.search(
            "3 of 3 networks stopped early; each is tested and saved at its lowest validation loss", ended.out
        )
        table = pd.read_csv(tmp_path / "run" / "metrics.csv")  # a member's rows end where it stops
        assert table["loss"].notna().all()
        last = table.groupby("member")["epoch"].max().to_numpy()
        np.testing.assert_array_equal(last, (np.isfinite(results[0].losses).sum(1) / (1294 / 16)).round())


def nn_outputs(params, state):
    net = nn.mlp([8], 10, norm="batch", dropout=0.3)
    return net.apply(params, state, data.load("digits").test.x, train=False)[0]


def test_records_of_members_end_with_them():
    history = [
        {"epoch": 1.0, "step": 5, "loss": np.array([1.0, 2.0])},
        {"epoch": 2.0, "step": 10, "loss": np.array([0.5, np.nan])},
    ]
    rows = history_records.split_members(history, np.array([False, True]))
    assert [(row["member"], row["epoch"], row["loss"]) for row in rows] == [(0, 1, 1), (0, 2, 0.5), (1, 1, 2)]


@pytest.mark.parametrize(
    ("environment", "networks", "devices"),
    [
        ({}, 1, 1),
        ({}, 1000, "cores"),
        ({"JAX_NUM_CPU_DEVICES": "3"}, 1000, 3),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}, 1000, 5),
    ],
)
def test_networks_are_spread_over_the_cores_or_what_the_user_chose(environment, networks, devices):
    program = f"""
import json, os, jax
from nnjax.cli import devices
devices.use_cores({networks})
mesh = devices.make_mesh({networks})
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
print(json.dumps([len(jax.devices()), 1 if mesh is None else mesh.size, cores]))
"""
    clean = {k: v for k, v in os.environ.items() if k not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=clean | environment
    )
    known, spread, cores = json.loads(ended.stdout)
    assert known == spread == (cores if devices == "cores" else devices)
