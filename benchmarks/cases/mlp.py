"""Networks for images of 784 pixels, from sizes dominated by overhead to sizes dominated by matrix products."""

from benchmarks.jobs.definitions import Training

# Rows per call for each width and batch size: at least four steps, so that the overhead of a call is negligible.
BATCHES = 32, 256, 4096
ROWS = {64: (2048, 2048, 32768), 256: (2048, 2048, 32768), 1024: (1024, 1024, 16384)}
RATE = 1e-5  # small, so that steps do not amplify rounding errors and results can be compared with float64

KIND = "training"
UNIT = "step"
JOBS = {
    f"784-{width}-{width}-10, batch {batch}": Training((784, width, width, 10), rows, batch, rate=RATE)
    for width, rows_of_call in ROWS.items()
    for rows, batch in zip(rows_of_call, BATCHES, strict=True)
}
QUICK = ()
THOROUGH = ("784-256-256-10, batch 256",)
ROUNDS = dict.fromkeys(JOBS, 5)
