"""Parse dates and encode them as numbers for a network."""

import itertools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache

import numpy as np

DAYS = (  # in order of preference
    "%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d %b %Y", "%d-%b-%Y",
    "%b %d, %Y", "%b %d %Y", "%d %B %Y", "%B %d, %Y", "%B %d %Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d-%b-%y",
)  # fmt: skip
MONTHS = ("%Y-%m", "%b %Y", "%B %Y")
TIMES = ("%H:%M:%S", "%H:%M", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p", "%H:%M:%S%z", "%H:%M:%S.%f%z", "%H:%M%z")
FORMATS = (*DAYS, *MONTHS, *(day + gap + time for day, gap, time in itertools.product(DAYS, (" ", "T"), TIMES)))
LONGEST = 40  # maximum number of characters of a date
CALENDAR = ("days", "sin year", "cos year", "sin week", "cos week")
CLOCK = ("sin day", "cos day")


def find_formats(texts: Sequence[str]) -> list[str]:
    """Return the `datetime.strptime` formats that fit all strings, in order of preference."""
    if not texts or not all(len(text) <= LONGEST and text[:1].isalnum() and text[-1:].isalnum() for text in texts):
        return []
    formats: Sequence[str] = FORMATS
    for text in texts:  # fast, because few formats fit the first string
        formats = [form for form in formats if _parse(text, form) is not None]
        if not formats:
            break
    return list(formats)


def choose_format(texts: Sequence[str], formats: Sequence[str]) -> tuple[str, str | None]:
    """Return the format of the dates and, if the order of day and month is ambiguous, an alternative (else None).

    A number that is the same in all dates is the day, because monthly tables have the same day in every row.
    """
    first, others = formats[0], [form for form in formats[1:] if _order(form) != _order(formats[0])]
    if not others:
        return first, None
    counts = {form: len({date.day for text in texts if (date := _parse(text, form))}) for form in (first, others[0])}
    if counts[first] == counts[others[0]] or 1 not in counts.values():
        return first, others[0]
    return min(counts, key=counts.__getitem__), None


def _order(form: str) -> str:
    return "".join(letter for letter in form if letter in "YymdbB")


def parse_dates(texts: Iterable[str | None], form: str) -> np.ndarray:
    """Parse dates (rows,) as datetime64[us], with NaT for None and for strings in a different format.

    Dates with a UTC offset are converted to UTC.
    """
    parse = cache(lambda text: None if text is None else _parse(text, form))
    return np.array([parse(text) for text in texts], "datetime64[us]")


def _parse(text: str, form: str) -> datetime | None:
    try:
        date = datetime.strptime(text, form)
    except ValueError:
        return None
    return date.astimezone(UTC).replace(tzinfo=None) if date.tzinfo else date


def has_time(form: str) -> bool:
    """Return True if dates in this format include a time of day."""
    return "%H" in form or "%I" in form


def date_names(form: str) -> tuple[str, ...]:
    """Return the names of the features that `encode_dates` returns."""
    return CALENDAR + (CLOCK if has_time(form) else ())


def encode_dates(dates: np.ndarray, form: str) -> np.ndarray:
    """Encode dates as features (rows, features), with NaN for missing dates.

    The features are the days since 1970 and the positions in the year and in the week. If the format has a time, there
    is also a position in the day. A position is the sine and cosine of an angle, so December is next to January.

    >>> from nnjax.data._dates import encode_dates
    >>> encode_dates(np.array(["1970-01-02"], "M8[us]"), "%Y-%m-%d").round(2).tolist()
    [[1.0, 0.02, 1.0, -0.43, -0.9]]
    """
    missing = np.isnat(dates)
    day = dates.astype("datetime64[D]")
    days = (dates - np.datetime64(0, "D")) / np.timedelta64(1, "D")
    year = (day - dates.astype("datetime64[Y]").astype("datetime64[D]")) / np.timedelta64(1, "D") / 365.25
    week = (np.where(missing, 0, day.astype(np.int64)) + 3) % 7 / 7  # 1 January 1970 was a Thursday
    clock = (dates - day) / np.timedelta64(1, "D")
    angles = [year, week, clock][: 3 if has_time(form) else 2]
    columns = [days, *(wave(2 * np.pi * angle) for angle in angles for wave in (np.sin, np.cos))]
    return np.where(missing[:, None], np.nan, np.stack(columns, axis=1))
