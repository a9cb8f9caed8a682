"""The routes of the HTTP API, a file for each of its parts."""
