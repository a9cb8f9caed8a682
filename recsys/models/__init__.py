"""Scores with arrays: user states, features, towers, index, ranker, bundle; trains nothing."""
