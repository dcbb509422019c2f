"""`python -m nnjax.cli`, the same as `nnjax`."""

from nnjax.cli import main

main()
