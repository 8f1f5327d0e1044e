"""Rows of real data: tables, images, folds, provenance, duplicates; no samplers."""
