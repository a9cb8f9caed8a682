"""Synthetic worlds of other kinds than films: a shop and music."""
