"""`python -m shortlist.batch`: the whole job, or one of its stages, under the environment's settings."""

from shortlist.batch.cli import batch_group

if __name__ == "__main__":
    batch_group(prog_name="python -m shortlist.batch")
