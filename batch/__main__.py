"""Runs the job as `python -m shortlist.batch`."""

from shortlist.batch.cli.batch import batch_group

if __name__ == "__main__":
    batch_group(prog_name="python -m shortlist.batch")
