"""Every figure, drawn from the live model."""
