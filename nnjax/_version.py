"""The version of nnjax, also for copies of the package that are not installed."""

__version__ = "0.1.0"
