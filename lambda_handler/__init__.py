"""The HTTP API: a lookup when there is a list, the full two-stage path when there is none."""
