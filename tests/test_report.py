"""report.html and `nnjax plot`: one page with everything, its checksum in the receipt, drawn again from the folder."""

import base64
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from runs import SMALL, assert_mistake, change_json, nnjax, process, read_json, succeed, with_warnings
from sklearn.datasets import load_iris, make_moons

from nnjax import plot
from nnjax.cli import history, html_page, images, importance, run_folder
from nnjax.cli.config import Config
from nnjax.data.table import Column, Table
from nnjax.storage.json_file import file_digest

DRAWN = (*SMALL, "--plots")
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """The tags, the addresses, the images and the cells of a page; fails if a tag is not closed."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.addresses, self.cells, self.text, self.open = [], [], [], "", []
        self.feed(content.decode())
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data

    def row(self, first):
        """Return the cells from the one with this text on."""
        return self.cells[self.cells.index(first) :]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    x, y = make_moons(300, noise=0.2, random_state=0)
    names = np.where(y, "inner <moon> & $x", "outer")
    pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "kind": names}).to_csv(folder / "moons.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """A run on a table of two features, with pictures."""
    succeed("train", folder / "moons.csv", "--target", "kind", "--members", 2, "--out", folder / "run", *DRAWN)
    return folder / "run"


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def test_the_report_is_one_file_with_everything(run):
    page = Page((run / "report.html").read_bytes())
    assert not {"script", "iframe", "object"} & set(page.tags)
    assert all(address.startswith("data:") for address in page.addresses)
    embedded = [base64.b64decode(address.partition("base64,")[2]) for address in page.addresses if "png" in address]
    files = {file.read_bytes() for file in run.glob("*.png")}
    assert len(embedded) == len(files) == 7  # curves, confusion, regions, importance and three of the ensemble
    assert set(embedded) == files
    assert "url(" not in (run / "report.html").read_text()
    result = read_json(run / "result.json")
    assert page.row("accuracy")[1:3] == [f"{result['test']['accuracy']:.4f}", f"{result['baseline']['accuracy']:.4f}"]
    recall = f"{result['recall']['inner <moon> & $x']:.4f}"
    assert page.row("inner <moon> & $x")[1:3] == [recall, "30"]
    assert page.row("--width")[1] == "8"
    assert page.row("--learning-rate")[1] == "0.003"  # the default of adamw
    assert page.row("dense(8)")[1:3] == ["(1, 8)", "16"]
    assert f"nnjax verify {run}" in page.text
    assert read_json(run / "receipt.json")["weights"] in page.text


def test_settings_that_were_chosen_are_bold(run):
    settings = (run / "report.html").read_text().partition("<h2>Settings</h2>")[2].partition("</section>")[0]
    bold = re.findall(r"<tr class=strong><td[^>]*>([^<]*)", settings)
    assert {"--target", "--members", "--width"} <= set(bold)
    assert not {"data", "--strategy", "--learning-rate", "--dropout", "--seed"} & set(bold)


def test_the_page_adapts_to_narrow_and_dark_screens(run):
    content = (run / "report.html").read_text()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in content
    assert "@media (prefers-color-scheme: dark)" in content
    assert "color-scheme: light dark" in content


def test_the_receipt_contains_a_checksum_of_the_report(copy):
    assert read_json(copy / "receipt.json")["files"]["report.html"] == file_digest(copy / "report.html")
    with (copy / "report.html").open("a") as file:
        file.write("<p>")
    assert run_folder.changes(copy, run_folder.RECEIPT_FILES) == [
        "report.html has changed since the run: it does not match its SHA-256"
    ]


def test_a_run_without_a_report_is_still_a_run(copy):
    """Runs of older versions have none."""
    files = read_json(copy / "receipt.json")["files"]
    del files["report.html"]
    change_json(copy / "receipt.json", files=files)
    (copy / "report.html").unlink()
    assert run_folder.changes(copy, run_folder.RECEIPT_FILES) == []
    succeed("plot", copy)
    assert read_json(copy / "receipt.json")["files"]["report.html"] == file_digest(copy / "report.html")


def test_plot_draws_the_same_again(run, copy):
    drawn = {file.name: file.read_bytes() for file in copy.iterdir() if file.suffix in (".png", ".html")}
    for name in drawn:
        (copy / name).unlink()
    ended = succeed("plot", copy)
    assert "curves.png, confusion.png, regions.png, importance.png, spread.png" in ended.out
    again = {file.name: file.read_bytes() for file in copy.iterdir() if file.suffix in (".png", ".html")}
    assert again.keys() == drawn.keys()
    assert {name for name in drawn if name.endswith("png") and again[name] != drawn[name]} == set()
    assert again["report.html"].replace(str(copy).encode(), str(run).encode()) == drawn["report.html"]
    assert run_folder.changes(copy, run_folder.RECEIPT_FILES) == []


@pytest.mark.parametrize("name", ["weights.safetensors", "result.json", "metrics.csv"])
def test_plot_refuses_files_that_have_changed(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(
        content.replace(b"0.", b"1.", 1) if name != "weights.safetensors" else content[:-1] + b"!"
    )
    assert_mistake(nnjax("plot", copy), f".*{name} has changed since the run")
    assert read_json(copy / "receipt.json")["files"][name] != file_digest(copy / name)


def test_plot_refuses_other_data(folder, copy, tmp_path):
    table = pd.read_csv(folder / "moons.csv")
    table.loc[0, "a"] += 1
    table.to_csv(tmp_path / "moons.csv", index=False)
    change_json(copy / "config.json", data=str(tmp_path / "moons.csv"))
    assert_mistake(nnjax("plot", copy), ".*the data or their split have changed since the run")


def test_plot_of_what_is_no_finished_run(folder, copy, tmp_path):
    assert_mistake(nnjax("plot", folder), ".* holds no run")
    (copy / "result.json").unlink()
    assert_mistake(nnjax("plot", copy), ".* holds an unfinished run: result.json is missing")
    shutil.copytree(folder / "run", tmp_path / "without_receipt")
    (tmp_path / "without_receipt" / "receipt.json").unlink()
    ended = with_warnings("plot", tmp_path / "without_receipt")
    assert ended.code == 0
    assert "has no receipt.json, so it is not certain" in ended.err
    assert not (tmp_path / "without_receipt" / "receipt.json").exists()


@pytest.mark.parametrize("members", [None, 2])
def test_curves_mark_the_networks_that_early_stopping_kept(folder, tmp_path, monkeypatch, members):
    drawn = []
    curves = plot.curves
    monkeypatch.setattr(plot, "curves", lambda history, **options: drawn.append(options) or curves(history, **options))
    several = () if members is None else ("--members", members)
    given = ("--target", "kind", "--learning-rate", 1, "--class-weights", "balanced", "--patience", 3, *several)
    succeed("train", folder / "moons.csv", *given, "--out", tmp_path / "run", *DRAWN, "--epochs", 4)
    result, metrics = read_json(tmp_path / "run" / "result.json"), pd.read_csv(tmp_path / "run" / "metrics.csv")
    epochs = dict(zip(metrics["step"], metrics["epoch"], strict=True))
    kept = [epochs[ending["best_step"]] for ending in result.get("members", [result])]
    assert drawn[0]["best_epoch"] == (kept[0] if members is None else kept)
    assert drawn[0]["training"] == (
        "mean over the epoch, raised by dropout 0.3 and batch statistics; with class weights"
    )
    assert "moons.csv → kind" in drawn[0]["context"].replace("\N{NO-BREAK SPACE}", " ")
    assert f"test accuracy {result['test']['accuracy']:.4f}" in drawn[0]["context"].replace("\N{NO-BREAK SPACE}", " ")


def test_a_run_that_diverged_has_a_report_too(folder, tmp_path):
    hot = ("--optimizer", "sgd", "--learning-rate", 1e30, "--norm", "none")
    path = tmp_path / "run"
    assert with_warnings("train", folder / "moons.csv", "--target", "kind", "--out", path, *DRAWN, *hot).code == 1
    assert "The training diverged, so there is no network to test." in Page((path / "report.html").read_bytes()).text
    succeed("plot", path)
    assert not list(path.glob("*.png"))


def test_small_data_have_no_reliability_diagram(tmp_path):
    iris = load_iris(as_frame=True).frame
    iris.to_csv(tmp_path / "iris.csv", index=False)
    succeed("train", tmp_path / "iris.csv", "--target", "target", "--out", tmp_path / "run", *DRAWN)
    assert {file.stem for file in (tmp_path / "run").glob("*.png")} == {"curves", "confusion", "importance"}


def test_a_regression_of_one_number_has_its_function(tmp_path):
    x = np.linspace(-3, 3, 100)
    pd.DataFrame({"x": x, "y": np.sin(x)}).to_csv(tmp_path / "sine.csv", index=False)
    given = ("--target", "y", "--members", 2, "--out", tmp_path / "run", *DRAWN)
    with_warnings("train", tmp_path / "sine.csv", *given)
    pictures = {"curves", "function", "predictions", "residuals", "spread"}
    assert {file.stem for file in (tmp_path / "run").glob("*.png")} == pictures


def test_a_sweep_has_a_report_and_is_drawn_again(folder, tmp_path):
    path = tmp_path / "sweep"
    swept = ("--learning-rate", "1e-3,1e-2", "--seeds", 2)
    ended = succeed("sweep", folder / "moons.csv", "--target", "kind", *swept, "--out", path, *DRAWN)
    drawn = {file.name: file.read_bytes() for file in path.iterdir() if file.suffix in (".png", ".html")}
    assert drawn.keys() == {"learning_rate.png", "report.html"}
    page = Page(drawn["report.html"])
    best = pd.read_csv(path / "sweep.csv").iloc[0]
    first = page.row(f"{best['learning_rate']:.4g}")
    assert first[1] == f"{best['validation_loss']:.4f} ± {best['validation_loss_sd']:.4f}"
    command = next(line for line in ended.out.splitlines() if line.startswith("test the best")).partition(": ")[2]
    assert command in page.text
    for name in drawn:
        (path / name).unlink()
    succeed("plot", path)
    assert {name: (path / name).read_bytes() for name in drawn} == drawn
    (path / "sweep.csv").unlink()
    assert_mistake(nnjax("plot", path), ".* holds an unfinished sweep: sweep.csv is missing")


def test_plot_is_a_command_of_its_own_process(run):
    ended = process("plot", run)
    assert ended.code == 0, ended
    assert f"report.html written to {run}" in ended.out


# The parts


def make_table(task, *columns):
    features = sum(len(column.categories or [0]) for column in columns)
    return Table(
        task, "y", ["a", "b"] if task == "classification" else [], list(columns), [0.0] * features, [1.0] * features
    )


def test_only_the_column_that_is_used_is_important():
    table = make_table("classification", Column("noise"), Column("kind", "text", ["u", "v"]))
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 500)
    x = np.stack([rng.normal(size=500), y == 0, y == 1], axis=1)
    found = importance.permutation_importance(lambda x: x[:, 1:], x, y, table, weights=100, seed=0)
    assert (found.names, found.score) == (["noise", "kind"], "accuracy")
    np.testing.assert_array_equal(found.drops[0], 0)
    assert found.drops.shape == (2, importance.MOST_REPEATS)
    assert 0.45 < found.drops[1].mean() < 0.55  # both halves are equally frequent
    assert found.drops[1].std() > 0.01


def test_the_importance_of_a_regression_is_a_drop_of_r2():
    table = make_table("regression", Column("used"), Column("unused"))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    y = x[:, :1] + 0.5 * rng.normal(size=(400, 1))
    found = importance.permutation_importance(lambda x: x[:, :1], x, y, table, weights=100, seed=0)
    assert found.score == "R²"
    assert found.drops[0].mean() == pytest.approx(2 / 1.25, abs=0.2)  # the errors grow by twice the variance of x
    np.testing.assert_array_equal(found.drops[1], 0)  # each repetition compares the same rows


def test_a_table_of_few_rows_has_no_importance(tmp_path):
    rows = load_iris(as_frame=True).frame[::6]
    rows.to_csv(tmp_path / "few.csv", index=False)
    given = ("--target", "sepal width (cm)", "--out", tmp_path / "run", *DRAWN)
    with_warnings("train", tmp_path / "few.csv", *given)
    assert {file.stem for file in (tmp_path / "run").glob("*.png")} == {"curves", "predictions", "residuals"}


def test_the_cost_of_importance_is_bounded():
    rows = []

    def predict(x):
        rows.append(len(x))
        return np.zeros((len(x), 2))

    table = make_table("classification", *(Column(f"x{i}") for i in range(50)))
    importance.permutation_importance(predict, np.zeros((5000, 50)), np.zeros(5000, int), table, weights=10**6, seed=0)
    assert sum(rows) <= 1.1 * 50 * importance.LEAST_ROWS * importance.LEAST_REPEATS


def test_history_is_what_was_written(folder):
    records = history.read_history(folder / "run" / "metrics.csv")
    assert [record["epoch"] for record in records] == [1, 2]
    table = pd.read_csv(folder / "run" / "metrics.csv")
    np.testing.assert_array_equal(records[1]["loss"], table[table["epoch"] == 2]["loss"])


def test_history_of_members_that_stopped_early(tmp_path):
    (tmp_path / "metrics.csv").write_text("member,epoch,step,loss\n0,1,5,1.5\n1,1,5,2.5\n1,2,10,\n")
    first, second = history.read_history(tmp_path / "metrics.csv")
    np.testing.assert_array_equal(first["loss"], [1.5, 2.5])
    np.testing.assert_array_equal(second["loss"], [np.nan, np.nan])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((5, 8, 6), (8, 6)), ((5, 8, 6, 1), (8, 6)), ((5, 8, 6, 3), (8, 6, 3)), ((5, 8, 6, 2), None), ((5, 48), None),
     ((5, 3, 16), None)],
)  # fmt: skip
def test_which_arrays_are_images(tmp_path, shape, expected):
    np.savez(tmp_path / "x.npz", x=np.zeros(shape, np.uint8), y=np.zeros(5))
    table = make_table("classification", *(Column(f"x{i}") for i in range(int(np.prod(shape[1:])))))
    assert images.image_shape(Config(str(tmp_path / "x.npz")), table) == expected
    assert images.image_shape(Config(str(tmp_path / "gone.npz")), table) is None
    assert images.image_shape(Config(str(tmp_path / "x.csv")), table) is None


def test_pixels_are_those_of_the_file():
    table = make_table("classification", *(Column(f"x{i}") for i in range(6)))._replace(mean=[1.0] * 6, std=[2.0] * 6)
    image = np.arange(6.0).reshape(1, 2, 3)
    standardised = (image.reshape(1, 6) - 1) / 2
    np.testing.assert_allclose(images.pixels(standardised, (2, 3), Config("x.npz"), table), image)
    np.testing.assert_allclose(images.pixels(image.reshape(1, 6), (2, 3), Config("digits"), table), image)


def test_a_page_escapes_what_it_shows():
    content = html_page.page("<b>", [html_page.header("a & b", "<i>"), html_page.table(["<x>"], [["</td>"]])])
    page = Page(content)
    assert page.cells == ["<x>", "</td>"]
    assert "a & b" in page.text
    assert re.search("<title>&lt;b&gt;</title>", content.decode())


def test_columns_of_numbers_are_aligned_on_the_right():
    content = html_page.table(["name", "n"], [["1", "1,000"], ["2", "–"]])
    assert content.count('<td class="number">') == 2
    assert '<td class="text">1</td><td class="number">1,000</td>' in content
    assert html_page.table(["name"], []) == ""


def test_pages_keep_options_on_a_line_and_show_wide_pictures_last():
    row = html_page.commands([("nnjax train a-b.csv --learning-rate 1e-3 -o <x>", "")])
    assert '<code>nnjax train a-b.csv <span class="word">--learning-rate</span> <span class="word">1e-3' in row
    assert "-o &lt;x&gt;" in row
    sizes = [(width.to_bytes(4) + (10).to_bytes(4)).rjust(24) for width in (1800, 750)]  # the start of a PNG file
    figures = html_page.pictures(zip(("wide", "small"), sizes, ("", ""), strict=True))
    assert figures.index('id="small"') < figures.index('id="wide" class=wide')
