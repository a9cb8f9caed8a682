"""Measures recommendations: metrics, baselines, and the report that compares methods."""
