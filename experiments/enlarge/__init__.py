"""Synthetic sets whose faces a super-resolution network makes larger."""
