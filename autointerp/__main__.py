"""`python -m autointerp` is the `autointerp` command."""

from autointerp.cli import main

if __name__ == "__main__":
    main()
