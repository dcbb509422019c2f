"""Compare the settings that `make_run` reads with those that a sweep or a search passes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax

from nnjax import checks
from nnjax.types import PyTree


class RecordedSettings(dict[str, Any]):
    """Settings that record which of them are read, also by `get`, `**settings` or `settings | {…}`."""

    def __init__(self, settings: dict[str, Any]):
        """Initialise the settings, none of which is read yet."""
        super().__init__(settings)
        self.read: set[Any] = set()

    def __getitem__(self, name: Any) -> Any:
        """Return a setting, and record that it is read."""
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: Any, default: Any = None) -> Any:
        """Return a setting or the default, and record that it is read."""
        self.read.add(name)
        return super().get(name, default)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, and record that all settings are read; copies of the dictionary call this, too."""
        self.read.update(super().keys())
        return super().__iter__()

    def items(self) -> Any:
        """Return names and values, and record that all settings are read."""
        return dict(self).items()

    def values(self) -> Any:
        """Return the values, and record that all settings are read."""
        return dict(self).values()

    def __or__(self, other: Any) -> Any:
        """Return the settings with some replaced, and record that all are read."""
        return dict(self) | other

    def __ror__(self, other: Any) -> Any:
        """Return other values with some replaced, and record that all settings are read."""
        return other | dict(self)


@contextmanager
def named_missing_setting(names: Sequence[str], source: str) -> Iterator[None]:
    """Add a note to the KeyError of a setting that `make_run` reads, but that does not exist in `source`."""
    try:
        yield
    except KeyError as error:
        if error.args[:1] and error.args[0] not in names:
            error.add_note(f"make_run reads {error.args[0]!r}, but {source} has only {', '.join(names)}")
        raise


def warn_of_unread_settings(
    where: str, source: str, make_run: Callable[[Any], Any], settings: Sequence[dict[str, Any]], example: PyTree
) -> None:
    """Warn of settings that `make_run` never reads, because their values would make no difference.

    An objective may read settings only when it is traced. So a step is traced if `make_run` has not read all settings.

    Args:
      where: "sweep" or "search".
      source: the argument with the settings, for the message.
      make_run: the function that builds the runs.
      settings: a setting of each structure; a name must be read in at least one of them.
      example: `(key, data, validation)` of the run, whose shapes and dtypes are traced.
    """
    key, data, validation = example
    unread = set(settings[0])

    def trace(run: Any) -> PyTree:
        ts = run.init(key, data)
        batch = jax.tree.map(lambda a: a[: run.batch_size], data)
        return run.step(ts, batch), None if validation is None else run.evaluate(ts, validation)

    for setting in settings:
        recorded = RecordedSettings(setting)
        try:
            run = make_run(recorded)
            if unread - recorded.read:
                jax.eval_shape(lambda run=run: trace(run))
        except Exception:  # a function of arrays may not accept this dictionary; the runs themselves raise other errors
            return
        unread -= recorded.read
        if not unread:
            return
    names = ", ".join(name for name in settings[0] if name in unread)
    checks.warn(
        f"{where}: make_run does not read {names}, so its values make no difference; read it, as in "
        f"hyper[{min(unread)!r}], or remove it from {source}"
    )
