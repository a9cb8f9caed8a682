"""Records, Redis, the event log and releases: all that the hit path may touch. No numpy."""
