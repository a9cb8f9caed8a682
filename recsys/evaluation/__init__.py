"""How good recommendations are: metrics, baselines, and the report that compares methods."""
