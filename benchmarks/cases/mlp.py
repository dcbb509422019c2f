"""Networks for images of 784 pixels, from those that overhead bounds to those that matrix products bound."""

from benchmarks.jobs.definitions import Training

# Rows of a call for each batch. No fewer than four steps: what a call does besides them is to be little.
BATCHES = 32, 256, 4096
ROWS = {64: (2048, 2048, 32768), 256: (2048, 2048, 32768), 1024: (1024, 1024, 16384)}
RATE = 1e-5  # so small that rounding is not amplified, and what peers compute can be compared with float64

KIND = "training"
UNIT = "step"
JOBS = {
    f"784-{width}-{width}-10, batch {batch}": Training((784, width, width, 10), rows, batch, rate=RATE)
    for width, many in ROWS.items()
    for rows, batch in zip(many, BATCHES, strict=True)
}
QUICK = ()
THOROUGH = ("784-256-256-10, batch 256",)
ROUNDS = dict.fromkeys(JOBS, 5)
