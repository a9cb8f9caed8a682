"""Runs the command line as `python -m shortlist.batch.cli`."""

from shortlist.batch.cli import main

if __name__ == "__main__":
    main()
