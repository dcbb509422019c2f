"""The progress bar of a search."""

from test_terminal import lines, screen
from train_runs import BATCH, DATA, HELD_OUT, KEY

from nnjax import losses, nn, optim, train


def linear(hyper):
    return train.Run(nn.dense(2), losses.cross_entropy, optim.sgd(hyper["rate"]), batch_size=BATCH)


def search(**settings):
    space = {"rate": train.log_uniform(1e-3, 0.3)}
    return train.search(
        linear, space, DATA, validation=HELD_OUT, trials=5, population=2, rungs=(1, 2), key=KEY, **settings
    )


def test_the_bar_counts_the_trials_that_have_ended(monkeypatch):
    file = screen(monkeypatch)
    found = search()
    drawn = lines(file)
    assert any("compiling …" in line for line in drawn)
    assert drawn[-1].startswith("trial 5/5 ")
    assert drawn[-1].endswith(f"best score {found.best.score:.4g}")
    assert max(map(len, drawn)) <= 77  # with room for ^C


def test_no_bar_without_progress(monkeypatch):
    file = screen(monkeypatch)
    search(progress=False)
    assert not lines(file)
