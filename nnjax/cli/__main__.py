"""Run the `nnjax` command as `python -m nnjax.cli`."""

from nnjax.cli import main

if __name__ == "__main__":
    main()
