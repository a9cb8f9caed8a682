"""Runs the cloud's parts on a laptop."""
