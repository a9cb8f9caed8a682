"""Runs the cloud's parts on a laptop: the Lambda service and a real Valkey."""
