"""How a prediction is judged, beside its baselines."""
