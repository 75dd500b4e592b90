"""Every method on every task, in one table."""
