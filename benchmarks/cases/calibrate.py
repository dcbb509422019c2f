"""Measure the limits of this machine: arithmetic, memory bandwidth, and the launch of a program."""

from benchmarks.jobs.definitions import Calibration

KIND = "calibration"
UNIT = "call"
JOBS = {
    "GEMM float32, 2048": Calibration("gemm", 2048),
    "GEMM tf32, 2048": Calibration("gemm", 2048, "tf32"),
    "GEMM bfloat16, 2048": Calibration("gemm", 2048, "bfloat16"),
    "copy, 256 MB": Calibration("copy", 2**25),
    "launch": Calibration("launch", 8),
}
QUICK = ("GEMM float32, 2048", "copy, 256 MB", "launch")
