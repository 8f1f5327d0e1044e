"""Captions of real rows: where sets of pictures and captions lie, and what a caption may say; no labels, no mixing."""
