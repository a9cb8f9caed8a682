"""Scoring with arrays: user states, features, towers, index, neighbours, ranker and bundle. No training library."""
