"""The tour of the lecture: its numbers are true, its code is what was run, and its page needs nothing else."""

import functools
import inspect
import re
import threading
from html.parser import HTMLParser

import numpy as np
import pytest

from nnjax import cli, nn
from nnjax.lecture import IDEAS, PARTS
from nnjax.lecture.idea import PREAMBLE, code_of, format_number
from nnjax.lecture.page import make_page
from nnjax.lecture.section import make_section, run_sections

pytest.importorskip("matplotlib")


@functools.cache
def run(name):
    """Run an idea once; return its numbers, and what it draws."""
    return IDEAS[name].run()


@functools.cache
def section(name):
    """Return the section of an idea, from the run above."""
    return make_section(IDEAS[name], *run(name))


# --- the numbers


def test_dot_product():
    numbers, (x, w, turned) = run("dot-product")
    assert numbers["their sum"] == numbers["nn.dense(1)"] == np.dot(x, w)
    assert numbers["products"] == [a * b for a, b in zip(x, w, strict=True)]
    angles = np.radians(np.arange(361))
    np.testing.assert_allclose(turned, 5**0.5 * np.cos(angles - np.arctan2(1, 2)), atol=1e-5)


def test_matrix_vector_product():
    numbers, (W, x, _) = run("matrix-vector-product")
    np.testing.assert_array_equal(numbers["row by row"], np.asarray(W) @ np.asarray(x))
    np.testing.assert_array_equal(numbers["row by row"], numbers["nn.dense(3)"])


def test_perceptron():
    numbers, _ = run("perceptron")
    by_hand = {
        "step, b = −1.5 (AND)": [0, 0, 0, 1],
        "step, b = −0.5 (OR)": [0, 1, 1, 1],
        "ReLU, b = −0.5": [0, 0.5, 0.5, 1.5],
        "gradient of the step": [0, 0],
        "gradient of ReLU": [2, 2],  # the sum of the three corners above the line
    }
    for name, values in numbers.items():
        np.testing.assert_array_equal(values, by_hand.pop(name), err_msg=name)
    assert not by_hand


def test_xor():
    numbers, (x, y, lines) = run("xor")
    assert numbers["corners right, at most"] == "3 of 4"
    np.testing.assert_array_equal(numbers["network with a hidden layer"], y)
    x, y, lines = map(np.asarray, (x, y, lines))
    fires = x @ lines[:, :2].T + lines[:, 2] > 0
    np.testing.assert_array_equal((fires == (y > 0)[:, None]).sum(0), 3)


def test_forward_pass():
    numbers, (values, weights) = run("forward-pass")
    np.testing.assert_allclose(numbers["y by hand"], numbers["y of the network"], rtol=1e-5)
    np.testing.assert_allclose(values[1], np.maximum(0, values[0] @ weights[0]), rtol=1e-5)  # biases are zero
    assert numbers["parameters"] == 3 * 5 + 5 + 5 * 4 + 4 + 4 * 2 + 2


def test_softmax():
    numbers, (x, bars, _, curves) = run("softmax")
    for T, p in bars.items():
        np.testing.assert_allclose(p, np.exp(x / T) / np.exp(x / T).sum(), rtol=1e-5)
    np.testing.assert_allclose(numbers["x + 10 000"], bars[1.0], rtol=1e-3)
    np.testing.assert_allclose(numbers["sums"], 1, rtol=1e-6)
    assert (np.diff(curves[:, 0]) <= 0).all()  # the hotter, the less has the largest
    assert curves[0, 0] > 0.99
    assert np.ptp(curves[-1]) < 0.1


def test_squared_error():
    numbers, (x, y, slopes, curve) = run("squared-error")
    expected = ((np.asarray(x) * np.asarray(slopes) - np.asarray(y)) ** 2).mean(0)
    np.testing.assert_allclose(curve, expected, rtol=1e-4)
    assert abs(numbers["at slope"] - numbers["where the derivative is zero"]) < 0.01
    assert numbers["lowest loss"] < numbers["loss at slope 0.3"] / 5


def test_gradient_descent_diverges_above_2_over_the_curvature():
    numbers, (_, sizes, paths, curves) = run("gradient-descent")
    assert sizes["too large"] > 1 > sizes["right"]
    small, right, large = curves[:, -1] / curves[:, 0]
    assert 0.1 < small < 1
    assert right < 1e-6
    assert large > 2
    # Along the steepest direction, each step multiplies the distance by 1 - λL
    factor = 1 - numbers["λ"][2] * numbers["curvatures"].max()
    far = np.asarray(paths[2, -6:]) - [1.5, -1]
    np.testing.assert_allclose(far[1:] / far[:-1], factor, rtol=1e-2)


def test_mini_batches():
    numbers, (_, curves, rough, exact) = run("mini-batches")
    np.testing.assert_allclose(numbers["mean of 16 mini-batches"], numbers["gradient at w = 0"], rtol=1e-5)
    low, high = numbers["smallest and largest"]
    assert low < 2 * numbers["gradient at w = 0"] < 0
    assert high > numbers["gradient at w = 0"] / 2
    np.testing.assert_allclose(exact["loss"], exact["true_loss"], rtol=1e-5)
    assert numbers["true loss after 3 epochs"] < numbers["without mini-batches"] / 2
    assert np.ptp(rough["loss"][20:]) > 10 * np.ptp(rough["true_loss"][20:])  # the estimates scatter
    np.testing.assert_allclose(curves.mean(0)[0], rough["true_loss"][0], rtol=1e-5)


def test_back_propagation():
    numbers, (table, *_) = run("back-propagation")
    sizes, backward, forward_mode = np.array(table).T
    assert (backward < 4).all()
    assert (forward_mode > sizes).all()
    assert sizes[-1] > 500 * sizes[0]
    assert numbers["largest difference"] < 1e-6


def test_momentum_leaves_the_minimum_that_plain_descent_ends_in():
    numbers, _ = run("momentum")
    np.testing.assert_allclose(numbers["plain descent ends at"], numbers["minima"][1], rtol=1e-3)
    np.testing.assert_allclose(numbers["Momentum ends at"], numbers["minima"][0], rtol=1e-3)
    assert numbers["minima"][0] < numbers["hill between them"] < numbers["minima"][1]
    assert numbers["losses there"][1] < numbers["losses there"][0] - 0.5


def test_rmsprop():
    _, (_, plain, scaled) = run("rmsprop")
    np.testing.assert_allclose(scaled[:, 0], scaled[:, 1], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(plain[-1, 0], (1 - 1.9 / 400) ** 120, rtol=1e-3)
    assert abs(scaled[-1, 0]) < 0.05 < plain[-1, 0]


def test_adam():
    _, (loss, paths) = run("adam")
    final = {name: float(loss(path[-1])) for name, path in paths.items()}
    assert list(final) == ["SGD", "Momentum", "RMSProp", "Adam"]
    assert max(final["Adam"], final["Momentum"]) < 1e-3 * final["SGD"]
    path, m, v = np.float64(paths["Adam"]), np.zeros(2), np.zeros(2)
    rate = abs(path[1] - path[0]).mean()  # the first step has the length λ in each parameter
    for t in range(1, 20):
        a, b = path[t - 1]
        g = np.array([-2 * (1 - a) - 40 * a * (b - a**2), 20 * (b - a**2)])
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        step = -rate * m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.99**t))
        np.testing.assert_allclose(path[t] - path[t - 1], step, rtol=1e-2, atol=1e-4)


def test_batch_norm():
    numbers, (plain, normed, *_) = run("batch-norm")
    spread = np.asarray(plain).std((1, 2))
    assert (spread[1:] < 0.8 * spread[:-1]).all()
    np.testing.assert_allclose(np.asarray(normed).std((1, 2)), 1, rtol=1e-2)
    assert numbers["loss, steps 90 … 99"] > 2.2
    assert numbers["loss with BatchNorm"] < 0.4


def test_ensembles():
    numbers, (_, _, _, members, truth) = run("ensembles")
    np.testing.assert_allclose(numbers["mean − spread"], numbers["error of the ensemble"], rtol=1e-4)
    assert numbers["error of the ensemble"] < numbers["their mean"]
    expected = ((np.asarray(members).mean(0) - truth) ** 2).mean()
    np.testing.assert_allclose(numbers["error of the ensemble"], expected, rtol=1e-4)


def test_dropout():
    _, (x, whole, thinned) = run("dropout")
    deviation = np.asarray(thinned).std(0)
    assert (abs(thinned.mean(0) - whole) < 5 * deviation / 4096**0.5 + 1e-5).all()
    assert deviation.mean() > 0.05
    assert np.mean((whole - np.sin(2 * x)) ** 2) < 0.05


def test_skip_connections():
    numbers, _ = run("skip-connections")
    first, last = numbers["gradient in layers 1 and 50"]
    assert first < 1e-4 * last
    first, last = numbers["with skip connections"]
    assert 0.1 < first / last < 10
    assert numbers["loss, steps 280 … 299"] > 2.2
    assert numbers["loss with skip connections"] < 0.2


def test_without_relu_a_network_is_affine():
    _, (x, y, side, linear, relu) = run("why-relu")
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    inputs = np.c_[grid, np.ones(len(grid))]
    for outputs, affine in ((linear, True), (relu, False)):
        best, *_ = np.linalg.lstsq(inputs, outputs, rcond=None)
        assert (abs(inputs @ best - outputs).max() < 1e-3) == affine
    assert ((np.sum((np.asarray(x) - [0.6, 0.4]) ** 2, 1) < 1) == np.asarray(y)).all()


def test_error_of_relu_networks_falls_with_the_width_and_of_others_does_not(optimizing_compiler):  # takes half as long
    numbers, (x, built, _) = run("universal-approximation")
    by_hand, relu, linear = (
        np.array(numbers[name]) for name in ("built by hand", "trained with ReLU", "trained without ReLU")
    )
    assert (by_hand <= np.array(numbers["bound h²/8"]) + 1e-5).all()
    np.testing.assert_allclose(by_hand, [abs(net - np.sin(x)).max() for net in built], atol=1e-6)
    assert (np.diff(relu) < 0).all()
    assert relu[-1] < 0.1
    assert relu[0] > 0.5
    np.testing.assert_allclose(linear, linear[0], rtol=0.02)
    assert linear[0] > 0.8


def test_summary():
    _, (errors, test, together) = run("summary")
    means = [e[:-1].mean() for e in errors.values()]
    assert means[0] > means[1] > means[2]
    assert list(errors.values())[2][-1] < 0.03
    for e in errors.values():
        assert e[-1] <= e[:-1].mean() + 0.003
    np.testing.assert_allclose(list(errors.values())[2][-1], np.mean(together.argmax(-1) != test.y), atol=1e-6)


# --- text and code

NAMES = list(IDEAS)


def test_every_file_of_an_idea_is_in_the_tour():
    assert len(IDEAS) == sum(map(len, PARTS.values())) == 20
    folder = inspect.getfile(IDEAS["adam"].draw).rsplit("adam.py", 1)[0]
    for name in NAMES:
        assert inspect.getfile(IDEAS[name].draw) == f"{folder}{name.replace('-', '_')}.py"


@pytest.mark.parametrize("name", NAMES)
def test_idea_has_three_sentences(name):
    idea = IDEAS[name]
    assert len(re.findall(r"[.?!](?= |$)", idea.text)) == 3
    assert ": " in idea.title
    assert idea.formula
    assert idea.caption.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_shown_code_needs_only_the_preamble(name):
    namespace = {}
    exec(PREAMBLE, namespace)
    idea = IDEAS[name]
    for function in idea.functions:
        for used, value in inspect.getclosurevars(function).globals.items():
            assert namespace.get(used) is value or value in idea.functions, f"{used} is not defined"
        assert inspect.getsource(function).rstrip() in code_of(idea)[0]


def test_a_function_is_shown_once():
    code, elsewhere = code_of(IDEAS["adam"], [IDEAS["gradient-descent"]])
    assert "def descend" not in code
    assert elsewhere == {"descend": "gradient-descent"}
    assert "def descend" in code_of(IDEAS["adam"], [IDEAS["softmax"]])[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("yes", "yes"),
        (4913, "4,913"),
        (np.float32(-0.5), "−0.5"),
        (34240.3, "34,240"),
        (6e-8, "6.0e−08"),
        ([nn.softmax(np.zeros(2, np.float32))[0], 1], "0.5   1"),
        (np.zeros((1, 3)), "0   0   0"),
    ],
)
def test_numbers_are_formatted(value, text):
    assert format_number(value) == text


def test_too_many_numbers_are_refused():
    with pytest.raises(ValueError, match="at most 12 numbers, got 13"):
        format_number(np.zeros(13))


# --- the page


EMPTY = {"meta", "br", "hr", "img", "link", "input"}  # elements that are not closed


class Page(HTMLParser):
    """Collect identifiers and references, and check that elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.tags, self.words = [], [], [], set(), []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "xlink:href", "src"):
                self.links.append(value)
            self.links += re.findall(r"url\((.*?)\)", value or "")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def page():
    names = ["perceptron", "gradient-descent", "rmsprop", "summary"]
    return make_page({"Part & whole": [section(name) for name in names]})


def test_page_needs_nothing_from_elsewhere(page):
    parsed = Page(page)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in parsed.links)
    assert not parsed.tags & {"script", "link", "iframe", "object"}
    assert "@import" not in page
    assert len(page) < 1_000_000


def test_identifiers_are_unique_and_links_lead_somewhere(page):
    parsed = Page(page)
    assert len(parsed.ids) == len(set(parsed.ids)) > 50
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)


def test_page_shows_text_code_numbers_and_pictures(page):
    words = " ".join("".join(Page(page).words).split())
    assert "Part & whole" in words
    for name in ("perceptron", "gradient-descent", "rmsprop", "summary"):
        idea = IDEAS[name]
        for text in (idea.text, idea.caption, idea.formula, inspect.getsource(idea.run)):
            assert " ".join(text.split()) in words
        for label, value in section(name).numbers.items():
            assert " ".join(f"{label}{value}".split()) in words
    assert page.count("<svg") == sum(
        len(section(name).pictures) for name in ("perceptron", "gradient-descent", "rmsprop", "summary")
    )
    assert "too small: λ = 0.02 · 2/L" in words  # text of a picture


def test_pictures_keep_the_order_of_the_run():
    _, svg = section("summary").pictures[0]
    places = [svg.index(text) for text in ("one layer,", "+ two hidden layers", "+ Adam,")]
    assert places == sorted(places)


def test_pictures_follow_the_colours_of_the_page(page):
    svgs = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert svgs
    for svg in svgs:
        assert set(re.findall(r"#[0-9a-f]{6}", svg)) <= {"#000000"}
        assert "var(--ink)" in svg
        assert "DejaVu" not in svg
    style = page[page.index("<style>") : page.index("</style>")]
    for variable in set(re.findall(r"var\((--[a-z]+)", page)):
        assert f"{variable}:" in style or variable == "--inches"


# --- the command


def lecture(*arguments):
    cli.app(["lecture", *arguments], standalone_mode=False)


def test_command_prints_an_idea_and_writes_its_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lecture("softmax")
    out = capsys.readouterr().out
    assert "0.6439   0.2369   0.08714   0.03206" in out
    assert "def run():" in out
    assert "lecture-softmax.html" in out
    text = (tmp_path / "lecture-softmax.html").read_text(encoding="utf-8")
    assert Page(text).ids.count("softmax") == 1
    assert 'id="adam"' not in text
    lecture("softmax")  # its own page is replaced


def small_idea(name, run):
    return IDEAS["softmax"]._replace(name=name, functions=(lambda: (run(), ()),), draw=lambda: [])


def test_two_ideas_run_at_the_same_time_and_are_shown_in_order():
    started = threading.Event()
    first = small_idea("first", lambda: {"second has started": started.wait(30)})
    second = small_idea("second", lambda: started.set() or {"n": 2})
    sections = list(run_sections([first, second]))
    assert [section.idea.name for section in sections] == ["first", "second"]
    assert sections[0].numbers == {"second has started": "1"}


def test_an_error_of_an_idea_ends_the_tour():
    sections = run_sections([small_idea("first", lambda: {"n": 1}), small_idea("second", lambda: {"n": 1 // 0})])
    assert next(sections).numbers == {"n": "1"}
    with pytest.raises(ZeroDivisionError):
        next(sections)


def test_list_names_all_ideas(capsys):
    lecture("--list")
    out = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", out, re.MULTILINE) for name in NAMES)


def test_unknown_idea_is_named(tmp_path):
    with pytest.raises(ValueError, match="softmax"):
        lecture("sofmax", "--out", str(tmp_path / "page.html"))
    assert not list(tmp_path.iterdir())


def test_other_files_are_not_overwritten(tmp_path):
    mine = tmp_path / "mine.html"
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="was not written by nnjax lecture"):
        lecture("softmax", "--out", str(mine))
    assert mine.read_text(encoding="utf-8") == "mine"


def test_a_page_that_cannot_be_written_is_noticed_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("nnjax.lecture.section.run_sections", lambda *_: pytest.fail("it was run"))
    with pytest.raises(ValueError, match="is a folder"):
        lecture("softmax", "--out", str(tmp_path))
    with pytest.raises(ValueError, match="does not exist"):
        lecture("softmax", "--out", str(tmp_path / "missing" / "page.html"))


def test_without_matplotlib_the_command_says_how_to_install_it(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"nnjax.lecture needs matplotlib: pip install 'nnjax\[cli\]'"):
        lecture("softmax", "--out", str(tmp_path / "page.html"))
