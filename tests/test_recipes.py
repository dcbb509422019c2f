"""Recipes train to the quality that their papers promise; killed ensembles of them are resumed bitwise."""

import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import data, losses, metrics, nn, optim, train
from nnjax.recipes import (
    contrastive,
    distillation,
    gan,
    maml,
    noisy_labels,
    pinn,
    policy_gradient,
    regularisers,
    text,
    two_heads,
    vae,
)
from nnjax.types import Data

FOLDER = Path(nnjax.__file__).parent / "recipes"
FILES = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")
DIGITS = data.load("digits")


def fit(run, *arguments, **settings):
    return train.fit(run, *arguments, progress=False, **settings)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_is_short_and_in_the_guide(path):
    code = path.read_text(encoding="utf-8")
    assert len(code.splitlines()) <= 40
    assert "def make_run(" in code
    assert f"](recipes/{path.name})" in (FOLDER.parent / "README.md").read_text(encoding="utf-8")


def test_vae_codes_images_better_than_their_mean():
    result = fit(vae.make_run(), DIGITS.train, epochs=20, validation=DIGITS.test)
    mean = jnp.clip(DIGITS.train.x.mean(0), 1e-3, 1 - 1e-3)
    pixels = jnp.broadcast_to(jnp.log(mean / (1 - mean)), DIGITS.test.x.shape)
    record, without_code = result.history[-1], losses.binary_cross_entropy(pixels, DIGITS.test.x).mean()
    assert record["validation_loss"] < without_code - 1
    assert record["validation_divergence"] > 2  # in nats: the code is used
    np.testing.assert_allclose(record["loss"], record["reconstruction"] + record["divergence"], rtol=1e-4)


def test_gan_draws_all_parts_of_the_distribution():
    angle = 2 * np.pi * np.arange(8) / 8
    centres = np.stack([np.cos(angle), np.sin(angle)], 1)
    rng = np.random.default_rng(0)
    points = centres[rng.integers(0, 8, 2048)] + rng.normal(0, 0.1, (2048, 2))
    result = fit(gan.make_run(), (points.astype(np.float32), np.zeros(2048, np.float32)), steps=2000)
    drawn = np.asarray(gan.generate(result.ts.params, result.ts.state, jax.random.key(1), 1000))
    distance = np.linalg.norm(drawn[:, None] - centres, axis=-1)
    near = distance.min(1) < 0.3
    assert near.mean() > 0.8
    assert np.bincount(distance.argmin(1)[near], minlength=8).min() > 40


def test_gan_players_have_optimizers_of_their_own():
    run = gan.make_run()
    points = Data(jnp.ones((256, 2)), jnp.zeros(256))
    ts = run.init(jax.random.key(0), points)
    after, log = run.step(ts, points)
    for player, rate in (("generator", 1e-3), ("discriminator", 2e-3)):
        moved = jax.tree.leaves(
            jax.tree.map(lambda a, b: jnp.abs(a - b).max(), ts.params[player], after.params[player])
        )
        np.testing.assert_allclose(max(moved), rate, rtol=1e-3)  # Adam's first step is the rate
    assert log.keys() == {"loss", "generator", "discriminator"}


def heads(part):
    ink = (np.asarray(part.x).sum(1, keepdims=True) - 20) / 3
    return Data(part.x, {"digit": part.y, "ink": ink.astype(np.float32)})


def test_two_heads_learn_both_targets():
    run = two_heads.make_run()
    result = fit(run, heads(DIGITS.train), epochs=20, validation=heads(DIGITS.test))
    output = run.predict(result.ts.params, result.ts.state, DIGITS.test.x)
    assert metrics.accuracy(output["digit"], DIGITS.test.y) > 0.92
    assert metrics.r2(output["ink"], heads(DIGITS.test).y["ink"]) > 0.9
    assert {"digit", "ink", "validation_digit", "validation_ink"} <= result.history[-1].keys()


def test_each_regulariser_makes_its_penalty_smaller_in_one_sweep():
    settings = {"l2": [0.0, 1e-3, 0.0], "spectral": [0.0, 0.0, 1e-2]}
    table, _ = train.sweep(
        regularisers.make_run, settings, DIGITS.train, epochs=8, validation=DIGITS.test, progress=False
    )
    plain, l2, spectral = (
        next(row for row in table if (row["l2"] > 0, row["spectral"] > 0) == which)
        for which in ((False, False), (True, False), (False, True))
    )
    assert l2["validation_l2"] < 0.75 * plain["validation_l2"]
    assert spectral["validation_spectral"] < 0.6 * plain["validation_spectral"]
    assert spectral["validation_spectral"] < l2["validation_spectral"]


def test_pinn_solves_the_equation():
    result = fit(pinn.make_run(), steps=1000)
    x = jnp.linspace(0, 1, 101)[:, None]
    u = pinn.make_run().predict(result.ts.params, result.ts.state, x)
    np.testing.assert_allclose(u, jnp.sin(jnp.pi * x), atol=0.02)


def test_policy_gradient_keeps_the_pole_up():
    result = fit(policy_gradient.make_run(), steps=100)
    assert result.log["reward"][:3].mean() < 40
    assert result.log["reward"][-20:].mean() > 180


def test_weights_by_confidence_learn_from_wrong_labels():
    rng, labels = np.random.default_rng(0), np.asarray(DIGITS.train.y)
    wrong = rng.random(len(labels)) < 0.4
    noisy = Data(DIGITS.train.x, np.where(wrong, rng.integers(0, 10, len(labels)), labels))
    make = lambda hyper: noisy_labels.make_run(hyper["exponent"])  # noqa: E731
    settings = {"exponent": [0.0, 0.7]}
    table, _ = train.sweep(make, settings, noisy, epochs=50, validation=DIGITS.test, seeds=2, progress=False)
    accuracy = {round(row["exponent"], 1): row["validation_accuracy"] for row in table}
    assert accuracy[0.7] > accuracy[0.0] + 0.02


def test_a_student_comes_closer_to_its_teacher_than_with_labels_alone():
    teacher = nn.mlp([256], 10)
    taught = fit(train.Run(teacher, losses.cross_entropy, optim.adam(3e-3), batch_size=64), DIGITS.train, epochs=10)

    def lesson(part):
        logits, _ = teacher.apply(taught.ts.params, taught.ts.state, part.x, train=False)
        return Data(part.x, {"label": part.y, "teacher": logits})

    make = lambda hyper: distillation.make_run(share=hyper["share"])  # noqa: E731
    settings, held_out = {"share": [0.0, 0.9]}, lesson(DIGITS.test)
    table, _ = train.sweep(make, settings, lesson(DIGITS.train), epochs=10, validation=held_out, progress=False)
    alone, distilled = sorted(table, key=lambda row: row["share"])
    assert distilled["validation_divergence"] < 0.5 * alone["validation_divergence"]
    assert distilled["validation_cross_entropy"] < alone["validation_cross_entropy"]


def test_contrastive_codes_find_the_other_view_of_unseen_images():
    run = contrastive.make_run()
    result = fit(run, DIGITS.train, epochs=20, validation=DIGITS.test)
    start = run.evaluate(run.init(jax.random.key(0), DIGITS.train), DIGITS.test)
    assert result.history[-1]["validation_accuracy"] > 2 * start["accuracy"]
    assert result.history[-1]["validation_loss"] < 0.65 * start["loss"]


def test_maml_learns_a_sine_in_one_step():
    result = fit(maml.make_run(), steps=1000)
    assert result.log["loss"][-100:].mean() < 0.4 * result.log["before"][-100:].mean()
    assert result.log["loss"][-100:].mean() < 0.5 * result.log["loss"][:20].mean()


def test_a_language_model_learns_a_text_and_its_ensemble_is_one_program():
    traces = []

    def apply(*arguments, **options):
        traces.append(1)
        return text.net.apply(*arguments, **options)

    run = train.Run(text.net._replace(apply=apply), losses.cross_entropy, optim.adam(1e-2), batch_size=16)
    examples = text.load_text()
    shares = np.bincount(np.ravel(examples.y)) / examples.y.size
    entropy = -np.sum(shares * np.log(shares, where=shares > 0, out=np.zeros(len(shares))))
    fit(run, examples, steps=2)
    alone, before = len(traces), len(traces)
    result = fit(run, examples, steps=80, members=8)
    assert len(traces) - before <= alone
    assert result.losses.shape == (8, 80)
    assert (result.losses[:, -20:].mean(1) < entropy - 0.3).all()  # better than any guess without the letters before
    member = jax.tree.map(lambda leaf: leaf[0], result.ts)
    assert text.continuation(member.params, member.state, "The value of th", 1) == "The value of the"


# Ensembles that are killed -------------------------------------------------------------------------------------------

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import jax, numpy as np
from nnjax import data, train
from nnjax.recipes import {recipe} as recipe
from nnjax.storage import checkpoint

out, mode = Path(sys.argv[1]), sys.argv[2]
examples = (data.load("digits").train,) if {needs_data} else ()
settings = dict(steps=40, members=3, chunk_steps=4, progress=False)

def kill(ts, record):
    while record["step"] >= 12 and not checkpoint.files(out):
        time.sleep(0.01)  # the first checkpoint is still being written
    if record["step"] >= 12:
        os.kill(os.getpid(), signal.SIGKILL)

def same(a, b):
    plain = jax.tree.map(lambda x: jax.random.key_data(x) if x.dtype == a.ts.key.dtype else x, (a.ts, b.ts))
    return jax.tree.all(jax.tree.map(lambda x, y: bool((np.asarray(x) == np.asarray(y)).all()), *plain))

if mode == "kill":
    train.fit(recipe.make_run(), *examples, out=out, save_every=0, callbacks=[kill], callback_every=4, **settings)
print(checkpoint.step_of(checkpoint.files(out)[-1]))
resumed = train.fit(recipe.make_run(), *examples, out=out, resume=True, **settings)
undisturbed = train.fit(recipe.make_run(), *examples, **settings)
key = jax.random.split(jax.random.key(0), 3)[1]
alone = train.fit(recipe.make_run(), *examples, key=key, **(settings | dict(members=None)))
print(same(resumed, undisturbed))
print(all((resumed.log[name] == values).all() for name, values in undisturbed.log.items()))
print(same(undisturbed._replace(ts=jax.tree.map(lambda a: a[1], undisturbed.ts)), alone))
"""


@pytest.mark.parametrize("recipe", ["vae", "policy_gradient"])
def test_a_killed_ensemble_is_resumed_to_the_bits_of_the_undisturbed_one(recipe, tmp_path):
    def run(mode):
        script = SCRIPT.format(recipe=recipe, needs_data=recipe == "vae")
        return subprocess.run(
            [sys.executable, "-c", script, tmp_path, mode],
            cwd=FOLDER.parents[1],
            capture_output=True,
            text=True,
            check=False,
        )

    killed = run("kill")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = run("finish")
    step, *equal = finished.stdout.split()
    assert 0 < int(step) < 40, finished.stderr
    assert equal == ["True", "True", "True"], finished.stderr
