"""`python -m nnjax.cli`, the same as `nnjax`."""

from nnjax.cli import main

if __name__ == "__main__":
    main()
