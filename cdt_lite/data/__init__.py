"""Cells: from files, public screens and the simulator, to batches of tokens."""
