"""Drawn faces with exact labels; no files, no data sets."""
