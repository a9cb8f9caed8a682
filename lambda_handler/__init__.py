"""Serves the HTTP API, in a Lambda or under uvicorn."""
