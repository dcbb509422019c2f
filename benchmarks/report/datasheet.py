"""List peak rates from the data sheets of accelerators, at boost clock and without sparsity."""

from typing import NamedTuple


class Peaks(NamedTuple):
    """Peak rates of a device; None if the data sheet does not state a rate."""

    float32: float | None  # operations per second without tensor cores
    tf32: float | None
    bfloat16: float | None  # operations per second; float16 on devices without bfloat16
    bandwidth: float  # bytes per second


PEAKS = {  # keyed by parts of JAX's `device_kind`, with longer names first
    "GH200 480GB": Peaks(67e12, 494e12, 989e12, 4.0e12),  # with 96 GB of HBM3
    "H200": Peaks(67e12, 494e12, 989e12, 4.8e12),
    "H100 NVL": Peaks(60e12, 417e12, 835e12, 3.9e12),
    "H100 PCIe": Peaks(51e12, 378e12, 756e12, 2.0e12),
    "H100": Peaks(67e12, 494e12, 989e12, 3.35e12),
    "A100-SXM4-80GB": Peaks(19.5e12, 156e12, 312e12, 2.04e12),
    "A100 80GB PCIe": Peaks(19.5e12, 156e12, 312e12, 1.94e12),
    "A100": Peaks(19.5e12, 156e12, 312e12, 1.56e12),
    "V100": Peaks(15.7e12, None, 125e12, 0.9e12),
    "L40S": Peaks(91.6e12, 183e12, 362e12, 0.864e12),
    "L40": Peaks(90.5e12, 90.5e12, 181e12, 0.864e12),
    "L4": Peaks(30.3e12, 60e12, 121e12, 0.3e12),
    "T4": Peaks(8.1e12, None, 65e12, 0.32e12),
    "RTX 4090": Peaks(82.6e12, 82.6e12, 165e12, 1.01e12),
    "RTX 3090": Peaks(35.6e12, 35.6e12, 71e12, 0.936e12),
    "TPU v6": Peaks(None, None, 918e12, 1.64e12),
    "TPU v5 lite": Peaks(None, None, 197e12, 0.82e12),
    "TPU v5": Peaks(None, None, 459e12, 2.77e12),  # v5p
    "TPU v4": Peaks(None, None, 275e12, 1.2e12),
}


def find_peaks(device: str) -> Peaks | None:
    """Return the peak rates of a device, given JAX's `device_kind`, or None for CPUs and unknown devices."""
    return next((peaks for name, peaks in PEAKS.items() if name in device), None)
