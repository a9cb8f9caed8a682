"""Scoring with arrays, which trains nothing."""
