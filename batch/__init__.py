"""The scheduled job: learn, evaluate, precompute, publish."""
