"""Developer tools: packaging, locks, generated tables and studies. Not part of the wheel."""
