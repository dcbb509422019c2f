"""The limits of this machine, each on its own: arithmetic, memory, the launch of a program."""

from benchmarks.jobs.definitions import Calibrating

KIND = "calibrate"
UNIT = "call"
JOBS = {
    "GEMM float32, 2048": Calibrating("gemm", 2048),
    "GEMM tf32, 2048": Calibrating("gemm", 2048, "tf32"),
    "GEMM bfloat16, 2048": Calibrating("gemm", 2048, "bfloat16"),
    "copy, 256 MB": Calibrating("copy", 2**25),
    "launch": Calibrating("launch", 8),
}
QUICK = ("GEMM float32, 2048", "copy, 256 MB", "launch")
