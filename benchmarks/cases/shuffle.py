"""Draw the shuffled rows of all batches of an epoch."""

from benchmarks.jobs.definitions import Shuffle

KIND = "shuffle"
UNIT = "batch"
JOBS = {
    f"{rows} rows, batch {batch}": Shuffle(rows, batch)
    for rows, batch in ((1792, 32), (61_440, 32), (61_440, 4096), (1_048_576, 4096))
}
QUICK = ("61440 rows, batch 32",)
