"""The fleet as it is now, in memory, and those who watch it."""
