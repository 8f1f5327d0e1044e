"""Comparing finished runs: what ``compare.py`` is made of. Imports neither torch nor Lightning, so it starts fast."""
