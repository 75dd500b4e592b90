"""From cells to a trained model, and from a trained model to cells."""
