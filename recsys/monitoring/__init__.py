"""Detects training/serving skew of features, from histograms."""
