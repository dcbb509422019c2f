"""Search for the best settings and stop bad trials early. Each search has its own seed and split of the data."""

from benchmarks.jobs.definitions import SettingSearch

KIND = "setting_search"
UNIT = "search"
DIGITS = SettingSearch("digits", 81, (1, 3, 9, 27), hidden=(64, 64), batch=32)
TABLE = DIGITS._replace(rungs=(3, 9, 27, 81))
JOBS = {
    "81 trials, digits 64-64-64-10": DIGITS,
    "81 trials, breast cancer 30-64-64-2": TABLE._replace(data="breast_cancer", outputs=2),
    "81 trials, wine 13-64-64-3": TABLE._replace(data="wine", outputs=3),
    "81 trials, diabetes 10-64-64-1": TABLE._replace(data="diabetes", outputs=1),
    "1000 trials, digits 64-64-64-10": DIGITS._replace(trials=1000),
    "81 trials, 10 000 × Fashion-MNIST 784-128-10": SettingSearch(
        "fashion-mnist", 81, (1, 3, 9), hidden=(128,), batch=128, rows=16_667, population=27
    ),
}
QUICK = ()
ROUNDS = dict.fromkeys(JOBS, 5)
EXTRA = tuple(JOBS)[1:]  # other peers take up to half a minute for a search
