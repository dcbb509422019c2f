"""Files of the wrong kind: each ends in one plain sentence, in bounded time and memory."""

import gzip
import io
import lzma
import os
import socket
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from runs import nnjax

from nnjax import data
from nnjax.data import _idx as idx
from nnjax.data._read_table import read_table

MOST_MEMORY = 100 * 2**20  # bytes that a refusal may take; the files here unpack to gigabytes


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refuse(read, path, message):
    """Check that reading the file ends in one sentence that names the file, and in little memory."""
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, OSError), match=message) as caught:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    assert Path(path).name in text


def load(path):
    return data.load(str(path), target="t" if str(path).endswith(".csv") else None)


def with_notes(path):
    """Load a file, and put the notes of an error into its message."""
    try:
        return load(path)
    except ValueError as error:
        raise ValueError(" ".join([str(error), *getattr(error, "__notes__", [])])) from None


READERS = {
    "f.csv": load,
    "f.npz": load,
    "f.gz": idx.read_idx,
    "f": idx.read_idx,
    "f.npy": lambda path: data.open_npy(path, path),
}


# What a path may lead to


def listen(path):
    opened = socket.socket(socket.AF_UNIX)
    opened.bind(str(path))
    opened.close()


PATHS = {
    "nothing": (lambda path: None, "no file .*f"),
    "pipe": (os.mkfifo, "is not a regular file"),
    "folder": (os.mkdir, "is not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
    "socket": (listen, "is not a regular file|No such device"),
    "dangling link": (lambda path: path.symlink_to(path.parent / "nowhere"), "no file .*f"),
    "links in a circle": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "empty file": (lambda path: write(path, b""), "cannot be read|is not|damaged"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(("make", "message"), PATHS.values(), ids=PATHS)
def test_paths_that_lead_to_no_file(tmp_path, monkeypatch, name, make, message):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    make(Path(name))
    if name == "f.npy" and make is os.mkdir:  # a folder of arrays
        message = "f.npy is a folder"
    refuse(READERS[name], Path(name), message)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("stem", ["x" * 300, "a\0b"], ids=["too long", "NUL"])
def test_names_that_the_system_refuses(name, stem):
    with pytest.raises((ValueError, OSError), match=r"File name too long|embedded null"):
        READERS[name](Path(stem + name))


# CSV

CSV = {
    "UTF-16": ("a,t\n1,2\n".encode("utf-16"), "1 row is too few"),
    "UTF-16, big-endian": ("\ufeffa,t\n1,2\n".encode("utf-16-be"), "1 row is too few"),
    "UTF-16 without a mark": ("a,t\n1,2\n".encode("utf-16-le"), "line 0: a NUL character; save the file in UTF-8"),
    "UTF-32": ("a,t\n1,2\n".encode("utf-32"), "is not text in UTF-8"),
    "half of a character": ("a,t\n1,ä".encode()[:-1], "is not text in UTF-8"),
    "NUL": (b"a,t\n1,\0\n", "line 1: a NUL character"),
    "image": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not text in UTF-8"),
    "long field": (b"a,t\n1," + b"x" * 10_000_000 + b"\n", "1 row is too few"),
    "long quoted field": (b'a,t\n1,"' + b"x\n" * 10_000_000 + b'"\n', "field larger than field limit"),
    "long name": (b"x" * 10_000_000 + b",t\n1,2\n", "line 1: a name of 10,000,000 characters"),
    "long name that the parser reads": (b"x" * 100_000 + b",t\n1,2\n", "line 1: a name of 100,000 characters"),
    "many long strings": (
        b"a,t\n" + b"".join(b"%d" % i + b"x" * 100_000 + b",a\n" for i in range(9)),
        "column 'a': 9 distinct strings in 9 rows, for example '0xxx",
    ),
    "a long text among numbers": (
        b"a,t\n" + b"".join(b"1,2.%d\n" % i for i in range(9)) + b"1," + b"y" * 100_000 + b"\n",
        "column 't': 9 of 10 values are numbers, but 'yyy.* in line 11 is not",
    ),
    "many columns": (b",".join(b"c%d" % i for i in range(10_000)) + b"\n", "unknown target column 't'"),
    "no line ends": (b"1," * 10_000_000, "line 0: more than 16,777,216 characters"),
    "millions of columns": (b"," * 2_000_000, "line 1: 2,000,001 columns, at most 1,048,576 are read"),
    "quote at the start": (b'"' + b"a,t\n1,2\n" * 100_000, "line 200000: unexpected end of data"),
    "empty lines": (b"\n" * 100, "line 1: no columns"),
    "header only": (b"a,t\n", "0 rows are too few"),
    "header without a line end": (b"a,t", "0 rows are too few"),
}


@pytest.mark.parametrize(("content", "message"), CSV.values(), ids=CSV)
def test_csv_files(tmp_path, content, message):
    refuse(with_notes, write(tmp_path / "f.csv", content), message)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_marks_and_line_ends(tmp_path, mark, end):
    path = write(tmp_path / "f.csv", mark + end.join(["größe,t".encode(), b'1,"a', b'b"', b"", b"2,c", b""]))
    read = read_table(path).frame
    assert list(read) == ["größe", "t"]
    assert read["größe"].tolist() == [1, 2]
    assert read["t"].tolist() == [f"a{end.decode()}b", "c"]


# NPZ


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def header(text, version=(1, 0)):
    """Return the start of a .npy file with this header."""
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text) + 1)
    return b"\x93NUMPY" + bytes(version) + length + text.encode() + b"\n"


def archive(path, compression=zipfile.ZIP_DEFLATED, **members):
    """Write an archive of members, given as bytes, arrays, or GIGABYTES."""
    large = [name for name, content in members.items() if content is GIGABYTES]
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            stored = npy(content) if isinstance(content, np.ndarray) else content
            file.writestr(f"{name}.npy", stored, zipfile.ZIP_STORED if name in large else None)
    for name in large:
        size = len(header(SHAPE % f"{3 * 2**27},")) + 3 * 2**30
        change(change(path, name, at=10, to=struct.pack("<H", 8)), name, at=24, to=struct.pack("<I", size))
    return path


def change(path, name="x", *, at, to):
    """Change bytes in the directory of an archive, in the entry of a member."""
    content = path.read_bytes()
    start = content.rindex(b"PK\1\2", 0, content.rindex(f"{name}.npy".encode()))
    path.write_bytes(content[: start + at] + to + content[start + at + len(to) :])
    return path


def deflate(start, gigabytes, wbits):
    """Return compressed zeros after a start, in a moment: one compressed piece is repeated."""
    packed = zlib.compressobj(9, wbits=wbits)
    first = packed.compress(start) + packed.flush(zlib.Z_FULL_FLUSH)
    return first + (packed.compress(bytes(2**24)) + packed.flush(zlib.Z_FULL_FLUSH)) * (64 * gigabytes)


def twice(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "w") as file:
            for content in (X, X + 1):
                file.writestr("x.npy", npy(content))
    return path


X, Y = np.arange(60.0).reshape(30, 2), np.arange(30) % 2
SHAPE = "{'descr': '<f8', 'fortran_order': False, 'shape': (%s)}"
GIGABYTES = deflate(header(SHAPE % f"{3 * 2**27},"), 3, -15)  # compressed float64
PICKLE = b"cos\nsystem\n(S'touch pickled'\ntR."

NPZ = {
    "no archive": (lambda path: write(path, "hello"), "is not an NPZ file"),
    "a .npy file": (lambda path: write(path, npy(X)), "is not an NPZ file"),
    "gzip": (lambda path: write(path, gzip.compress(npy(X))), "is not an NPZ file"),
    "no members": (archive, "an array named x .* is missing; the file has no arrays"),
    "other members": (lambda path: archive(path, a=X, b=Y), "is missing; the file has a, b"),
    "x twice": (twice, "holds 2 arrays named x"),
    "objects": (lambda path: archive(path, x=npy(np.array([{}] * 9)), y=Y), "array x: it holds objects"),
    "a pickle": (lambda path: archive(path, x=PICKLE, y=Y), "array x: .*magic"),
    "a pickle with a header": (
        lambda path: archive(path, x=header("{'descr': '|O', 'fortran_order': False, 'shape': (9,)}") + PICKLE),
        "array x: it holds objects",
    ),
    "records": (lambda path: archive(path, x=np.zeros(9, "i4,f4"), y=Y), "array x: it holds .*convert them"),
    "complex": (lambda path: archive(path, x=X + 1j, y=Y), "array x: it holds complex128"),
    "dates": (lambda path: archive(path, x=np.zeros((30, 1), "M8[s]"), y=Y), r"array x: it holds datetime64\[s\]"),
    "no header": (lambda path: archive(path, x=b"", y=Y), "array x: EOF|array x: .*magic"),
    "version 9": (lambda path: archive(path, x=b"\x93NUMPY\x09\0" + bytes(99), y=Y), "array x: .*version"),
    "version 3": (lambda path: archive(path, x=npy(X, version=(3, 0)), y=Y), r"array x: version \(3, 0\)"),
    "deep header": (lambda path: archive(path, x=header("(" * 9000), y=Y), "array x: "),
    "deep header of operators": (lambda path: archive(path, x=header("-" * 9000 + "1"), y=Y), "array x: "),
    "header with a token error": (lambda path: archive(path, x=header("{'descr': '''"), y=Y), "array x: "),
    "header of 4 GB": (lambda path: archive(path, x=header("{", (2, 0))[:8] + b"\xff" * 4, y=Y), "array x: "),
    "long header": (lambda path: archive(path, x=header("{" + " " * 60_000 + "}"), y=Y), "array x: "),
    "shape of text": (lambda path: archive(path, x=header(SHAPE % "'a',"), y=Y), "array x: "),
    "negative shape": (lambda path: archive(path, x=header(SHAPE % "-3,") + bytes(24), y=Y), "array x: "),
    "large shape": (lambda path: archive(path, x=header(SHAPE % "2**60,") + bytes(24), y=Y), "array x: "),
    "exabytes": (lambda path: archive(path, x=header(SHAPE % f"{2**60},") + bytes(24), y=Y), "are too many to load"),
    "beyond int64": (lambda path: archive(path, x=header(SHAPE % f"{10**30},") + bytes(24), y=Y), "are too many"),
    "no numbers, long axes": (lambda path: archive(path, x=header(SHAPE % f"{2**62},0"), y=Y), "x is|array x"),
    "long strings": (
        lambda path: archive(path, x=header("{'descr': '<U999999999', 'fortran_order': False, 'shape': (9,)}")),
        "array x: ",
    ),
    "fewer bytes than its shape": (
        lambda path: archive(path, x=npy(X)[:-8], y=Y),
        r"array x: expected 608 bytes for shape \(30, 2\), got 600",
    ),
    "more bytes than its shape": (
        lambda path: archive(path, x=npy(X) + b"\0", y=Y),
        "expected 608 bytes for .*, got 609",
    ),
    "gigabytes in x": (lambda path: archive(path, x=GIGABYTES, y=Y), "are too many to load"),
    "gigabytes in y": (lambda path: archive(path, x=X, y=GIGABYTES), "array y: .* are too many to load"),
    "encrypted": (lambda path: change(archive(path, x=X, y=Y), at=8, to=b"\1\0"), "array x: .*(encrypted|password)"),
    "unknown compression": (
        lambda path: change(archive(path, x=X, y=Y), at=10, to=b"a\0"),
        "array x: .*compression",
    ),
    "deflate that is not": (
        lambda path: change(archive(path, zipfile.ZIP_STORED, x=X), at=10, to=b"\10\0"),
        "array x",
    ),
    "LZMA that is not": (
        lambda path: change(archive(path, zipfile.ZIP_STORED, x=X), at=10, to=b"\16\0"),
        "array x",
    ),
    "bzip2 that is not": (
        lambda path: change(archive(path, zipfile.ZIP_STORED, x=X), at=10, to=b"\14\0"),
        "array x",
    ),
    "wrong checksum": (lambda path: change(archive(path, x=X, y=Y), at=16, to=b"\7\7"), "array x: .*CRC"),
    "a number": (lambda path: archive(path, x=np.array(1.0), y=Y), "is a single number, not rows"),
    "no columns": (lambda path: archive(path, x=np.zeros((30, 0)), y=Y), "the target 'y' is the only column"),
    "x and y of different length": (lambda path: archive(path, x=X, y=Y[1:]), r"got x \(30, 2\) and y \(29,\)"),
    "large integers": (lambda path: archive(path, x=np.full((30, 1), 2**53 + 1), y=Y), "has more digits"),
    "beyond float64": (
        lambda path: archive(path, x=np.full((30, 1), 10.0, np.longdouble) ** 400, y=Y),
        "holds an infinite number",
    ),
}


@pytest.mark.parametrize(("make", "message"), NPZ.values(), ids=NPZ)
def test_npz_files(tmp_path, monkeypatch, make, message):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "f.npz")
    refuse(with_notes, tmp_path / "f.npz", message)
    assert not (tmp_path / "pickled").exists()


def test_only_the_arrays_that_are_used_are_unpacked(tmp_path):
    path = archive(tmp_path / "f.npz", x=X, y=Y, z=GIGABYTES, pickle=PICKLE)
    tracemalloc.start()
    assert load(path).train.x.shape == (24, 2)
    assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    tracemalloc.stop()


FORMS = {
    "stored": {"compression": zipfile.ZIP_STORED, "x": X},
    "bzip2": {"compression": zipfile.ZIP_BZIP2, "x": X},
    "LZMA": {"compression": zipfile.ZIP_LZMA, "x": X},
    "columns first": {"x": np.asfortranarray(X)},
    "big-endian": {"x": X.astype(">f8")},
    "long double": {"x": X.astype(np.longdouble)},
    "float16": {"x": X.astype(np.float16)},
    "version 2": {"x": npy(X, version=(2, 0))},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms_of_the_same_arrays(tmp_path, form):
    expected = load(archive(tmp_path / "a.npz", x=X, y=Y))
    read = load(archive(tmp_path / "b.npz", **form, y=Y))
    np.testing.assert_array_equal(read.train.x, expected.train.x)
    np.testing.assert_array_equal(read.test.y, expected.test.y)


def test_files_are_utf_8_in_every_locale_and_need_no_pandas(tmp_path):
    write(tmp_path / "f.csv", "größe,t\n" + "1,ä\n2,ö\n3,ü\n" * 9)
    archive(tmp_path / "f.npz", x=X, y=Y)
    code = (
        "import sys, warnings; sys.modules['pandas'] = None; from nnjax import data;"
        "warnings.filterwarnings('error', category=EncodingWarning, module='nnjax');"
        "data.load('f.npz'); sys.stdout.reconfigure(encoding='utf-8');"
        "print(*data.load('f.csv', target='t').table.classes)"
    )
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-X", "warn_default_encoding", "-c", code]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert ended.stdout.decode().split() == ["ä", "ö", "ü"], ended.stderr.decode()


# .npy

NPY = {
    "hello": (b"hello", "cannot be read as .npy"),
    "a pickle": (PICKLE, "cannot be read as .npy"),
    "an archive": (b"PK\3\4" + bytes(99), "cannot be read as .npy"),
    "objects": (npy(np.array([{}] * 9)), "cannot be read as .npy: .*[Oo]bject"),
    "strings": (npy(np.array([b"abcd"] * 9)), r"f.npy must be numbers, got \|S4; encode text"),
    "durations": (npy(np.ones(9, "m8[s]")), "f.npy must be numbers, got timedelta64.*divide by a unit"),
    "one number": (npy(np.array(1.0)), r"has the shape \(\); expected"),
    "no rows": (npy(np.zeros((0, 2))), "cannot be read as .npy|has the shape"),
    "deep header": (header("(" * 9000), "cannot be read as .npy"),
    "token error": (header("{'descr': '''"), "cannot be read as .npy"),
    "too short": (npy(X)[:-1], "cannot be read as .npy"),
    "exabytes": (header(SHAPE % f"{2**60},"), "cannot be read as .npy"),
    "beyond int64": (header(SHAPE % f"{10**30},"), "cannot be read as .npy"),
}


@pytest.mark.parametrize(("content", "message"), NPY.values(), ids=NPY)
def test_npy_files(tmp_path, content, message):
    refuse(lambda path: data.open_npy(path, path), write(tmp_path / "f.npy", content), message)


# IDX


def idx_bytes(shape, code=8, content=None):
    axes = b"".join(struct.pack(">I", size) for size in shape)
    return bytes([0, 0, code, len(shape)]) + axes + (bytes(int(np.prod(shape))) if content is None else content)


IDX = {
    "gigabytes": (lambda: deflate(idx_bytes((9,)), 3, 31), "expected 9 bytes after the header for .*, got more bytes"),
    "gigabytes in the header": (lambda: gzip.compress(idx_bytes((2**31, 2), content=b"")), "more than 268,435,456"),
    "255 axes": (lambda: gzip.compress(idx_bytes((1,) * 255)), "is not an IDX file"),
    "no axes": (lambda: gzip.compress(idx_bytes((), content=b"1")), None),
    "a .npy file": (lambda: gzip.compress(npy(X)), "is not an IDX file"),
    "LZMA": (lambda: lzma.compress(idx_bytes((9,))), "is damaged"),
}


@pytest.mark.parametrize(("make", "message"), IDX.values(), ids=IDX)
def test_idx_files(tmp_path, make, message):
    path = write(tmp_path / "f.gz", make())
    if message is None:
        assert idx.read_idx(path).shape == ()
    else:
        refuse(idx.read_idx, path, message)


def images(n, size=2):
    return idx_bytes((n, size, size))


SETS = {  # training images and labels, test images and labels; the message
    "right": (images(4), idx_bytes((4,)), images(2), idx_bytes((2,)), None),
    "fewer labels": (images(4), idx_bytes((3,)), images(2), idx_bytes((2,)), "holds 4 images, but .* holds 3 labels"),
    "more labels": (images(4), idx_bytes((5,)), images(2), idx_bytes((2,)), "holds 4 images, but .* holds 5 labels"),
    "fewer test labels": (images(4), idx_bytes((4,)), images(2), idx_bytes((1,)), "t10k-.* 2 images, .* 1 labels"),
    "images and labels swapped": (idx_bytes((4,)), images(4), images(2), idx_bytes((2,)), "are two files swapped"),
    "labels swapped": (images(4), idx_bytes((2,)), images(2), idx_bytes((4,)), "4 images, but .* 2 labels.* swapped"),
    "no images": (images(0), idx_bytes((0,)), images(2), idx_bytes((2,)), "holds 0 images"),
    "images of another size": (images(4), idx_bytes((4,)), images(2, 3), idx_bytes((2,)), r"test images \(3, 3\)"),
    "colour images": (idx_bytes((4, 2, 2, 3)), idx_bytes((4,)), images(2), idx_bytes((2,)), r"expected \(n, rows, col"),
    "labels of two axes": (images(4), idx_bytes((4, 1)), images(2), idx_bytes((2,)), r"expected \(n,\) uint8"),
    "floats": (
        idx_bytes((4, 2, 2), 0x0D, bytes(64)), idx_bytes((4,)), images(2), idx_bytes((2,)),  ">f4, expected"
    ),
    "label 10": (images(2), idx_bytes((2,), content=b"\1\12"), images(2), idx_bytes((2,)), "label 10 in row 1"),
}  # fmt: skip


@pytest.mark.parametrize(("files"), SETS.values(), ids=SETS)
def test_idx_files_belong_together(tmp_path, files):
    for name, content in zip(idx.NAMES, files[:4], strict=True):
        write(tmp_path / name, content)
    if files[4] is None:
        assert [len(part.x) for part in data.load("fashion-mnist", data_dir=tmp_path)[:2]] == [4, 2]
    else:
        with pytest.raises(ValueError, match=files[4]):
            data.load("fashion-mnist", data_dir=tmp_path)


# The command line


def test_the_command_line_ends_with_exit_code_2(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    write(tmp_path / "utf-16.csv", "a,t\n1,2\n".encode("utf-16"))
    archive(tmp_path / "large.npz", x=GIGABYTES, y=Y)
    archive(tmp_path / "deep.npz", x=header("(" * 9000), y=Y)
    archive(tmp_path / "locked.npz", x=X, y=Y)
    change(tmp_path / "locked.npz", at=8, to=b"\1\0")
    for name in ("pipe.csv", "utf-16.csv", "large.npz", "deep.npz", "locked.npz"):
        ended = nnjax(
            "train", tmp_path / name, "--target", "t" if name.endswith("csv") else "y", "--out", tmp_path / "run"
        )
        assert ended.code == 2, (name, ended)
        assert name in ended.err
        assert len(ended.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
