"""The format of a run folder, written and read here alone; imports no torch."""
