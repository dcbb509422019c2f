"""Run a comparison of optimizers in a separate process, because their code may hang, crash or end the process."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from nnjax.cli import options as o

CANNOT_RUN = 4  # exit code
EXIT_SECONDS = 0.5  # time to kill the process, remove the temporary files and exit, on a busy machine
MAX_FITS_IN_AUDIT = 300  # for each optimizer
# the fits are too small to benefit from several threads
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def run(request: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Run a request in a separate process and return its result, or {"error": …} if it has no result.

    Args:
      request: the request for `answer`, without its deadline.
      seconds: time limit in seconds, counted from the start of the command, after which the process is killed.
    """
    left = max(seconds - seconds_since_start() - EXIT_SECONDS, 0.0)
    end = time.monotonic() + left
    with tempfile.TemporaryDirectory(prefix="nnjax-optcheck-") as folder:
        result, log = Path(folder, "result.json"), Path(folder, "log")
        Path(folder, "request.json").write_text(json.dumps(request | {"end": time.time() + left}), encoding="utf-8")
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from {__name__} import main; main({folder!r})"],
                env=os.environ | ONE_THREAD | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code: int | None = process.wait(max(end - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _kill(process)
        if code is None:
            return {"error": f"the comparison did not end within {seconds:g} s, and was killed"}
        if not result.exists():
            how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
            last = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()][
                -3:
            ]
            return {"error": "\n  ".join([f"the process ended with {how} before the comparison was complete", *last])}
        content: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return content


def seconds_since_start() -> float:
    """Return the time since this process started if it runs the command alone, else 0.

    The imports of the command take seconds, which count towards its time limit.
    """
    main_function = getattr(sys.modules.get("__main__"), "main", None)
    if getattr(main_function, "__module__", "") != __name__.rpartition(".")[0]:
        return 0.0  # another program, such as pytest, calls the command
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # seconds since the machine started
        return max(time.clock_gettime(time.CLOCK_BOOTTIME) - started, 0.0)
    except (OSError, ValueError, AttributeError, IndexError):  # not Linux
        return time.process_time()  # of the CPU, a lower bound


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill the process and all processes that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Compare two optimizers, or audit a module or file, and return the exit code and the report in all formats."""
    from nnjax import optcheck

    seconds = max(request["end"] - time.time(), 0.1)
    place, _, name = request["candidate"].rpartition(":")
    if request["candidate"].endswith(".py") or not place:
        is_path = request["candidate"].endswith(".py") or Path(request["candidate"]).is_dir()
        fits = min(request["max_fits"], MAX_FITS_IN_AUDIT)
        audit = optcheck.audit(o.path(request["candidate"]) if is_path else name, max_fits=fits)
        return {"text": str(audit), "exit_code": audit.exit_code, "json": audit.to_json(), "github": audit.github()}
    module, candidate = load(request["candidate"])
    init = request["init"]
    if init not in (None, "zeros"):
        init = load(init)[1] if ":" in init else _attribute(module, init, place)
    options = {"kind": request["kind"], "init": init, "order": request["order"]}
    options |= {"max_fits": request["max_fits"], "seconds": seconds}
    report = _compare(candidate, request["against"], request["hparams"], options)
    if request["plot"] is not None:
        report.plot().savefig(request["plot"])
    code = report.exit_code
    if code == 1 and report.allowed(request["allow"]):
        code = 3 if report.broken else 0
    return {
        "text": str(report),
        "exit_code": code,
        "json": report.to_json(),
        "github": report.github(*source(candidate)),
    }


def _compare(candidate: Any, against: str, hparams: dict[str, Any], options: dict[str, Any]) -> Any:
    """Compare two optimizers. Hyper-parameters that the candidate does not take are passed to the reference only.

    A function that is not an optimizer is called as a factory. If a candidate needs a learning rate and none is given,
    it is 1e-3.
    """
    from nnjax.optcheck import NotAnOptimizerError, compare
    from nnjax.optcheck.calling.factories import build, needs_rate, taken_hparams, with_hparams
    from nnjax.optcheck.calling.kinds import kind_of

    if taken := taken_hparams(candidate, hparams):
        rest = {name: value for name, value in hparams.items() if name not in taken}
        reference = with_hparams(against, hparams, rest) if rest else against
        return compare(candidate, reference, hparams=taken, **options)
    try:
        is_factory = needs_rate(candidate) and not hparams
        kind_of(candidate)
    except NotAnOptimizerError:
        if not callable(candidate):
            raise
        is_factory = True
    if is_factory:
        return compare(candidate, against, hparams=hparams or {"learning_rate": 1e-3}, **options)
    return compare(candidate, build(against, hparams or None), **options)


def source(candidate: Any) -> tuple[str, int]:
    """Return the source file of an optimizer and the number of its first line, or ("", 1) if they are unknown."""
    import inspect

    target = getattr(candidate, "func", candidate)
    target = target if inspect.isclass(target) or inspect.isfunction(target) else type(target)
    try:
        return os.path.relpath(inspect.getsourcefile(target) or ""), inspect.getsourcelines(target)[1]
    except (TypeError, OSError, ValueError):
        return "", 1


def load(name: str) -> tuple[ModuleType, Any]:
    """Load the object MODULE:NAME or FILE.py:NAME, and return its module and the object.

    Raises:
      ValueError: if the name is neither MODULE:NAME nor FILE.py:NAME.
      ImportError, FileNotFoundError, AttributeError: if the module, file or object does not exist.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise ValueError(
            f"{name!r} must be MODULE:NAME, such as my_package.optimizers:my_adam or optimizers.py:my_adam"
        )
    from nnjax.optcheck._audit import import_place

    module = import_place(o.path(place) if place.endswith(".py") else place)
    return module, _attribute(module, attribute, place)


def _attribute(module: ModuleType, attribute: str, place: str) -> Any:
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            attributes = {name: member for name, member in vars(module).items() if not isinstance(member, ModuleType)}
            names = ", ".join(name for name in attributes if not name.startswith("_"))
            raise AttributeError(f"{place} has no {attribute}; it has {names}")
        value = getattr(value, part)
    return value


def describe_error(error: BaseException) -> str:
    """Return the message of an error and its location in the candidate's code."""
    notes = "".join(
        f"\n  {note}" for note in getattr(error, "__notes__", []) if not note.startswith("-----")
    )  # omit JAX's separator
    libraries = (str(Path(__file__).parents[1]), *sysconfig.get_paths().values(), "<frozen")
    inner = error if error.__cause__ is None else error.__cause__
    frames = [frame for frame in traceback.extract_tb(inner.__traceback__) if not frame.filename.startswith(libraries)]
    frames = [frame for frame in frames if "importlib" not in frame.filename and "<string>" not in frame.filename]
    place = f"\n  in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{notes}{place}"


def _limit_memory(gibibytes: float) -> None:
    """Limit the address space of this process, so that an optimizer that leaks memory cannot stall the machine."""
    try:
        import resource
    except ImportError:  # Windows
        return
    size = int(gibibytes * 2**30)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def main(folder: str) -> None:
    """Answer the request in a folder, and atomically write the result to the same folder."""
    request = json.loads(Path(folder, "request.json").read_text(encoding="utf-8"))
    _limit_memory(request["memory"])
    try:
        result = answer(request)
    except MemoryError as error:
        result = {"error": f"the comparison needs more than {request['memory']:g} GiB ({error}); raise --memory"}
    except (Exception, SystemExit) as error:  # the candidate's code may raise any exception
        result = {"error": describe_error(error)}
    unfinished = Path(folder, "unfinished.json")
    unfinished.write_text(json.dumps(result), encoding="utf-8")
    unfinished.rename(Path(folder, "result.json"))
    os._exit(0)  # do not wait for threads that the candidate started
