"""Routes of the HTTP API, one file for each tag of the document."""
