"""The model: its configuration, its layers, its process."""
