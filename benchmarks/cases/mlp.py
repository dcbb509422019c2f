"""Train networks for images of 784 pixels: overhead matters in small ones; matrix products dominate large ones."""

from benchmarks.jobs.definitions import Training

# Rows per call for each width and batch size. At least four steps make the overhead of a call negligible.
BATCHES = 32, 256, 4096
ROWS = {64: (2048, 2048, 32768), 256: (2048, 2048, 32768), 1024: (1024, 1024, 16384)}
RATE = 1e-5  # small enough not to amplify rounding errors, which makes results comparable with float64

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
