"""Scores of labels and of faces, and which way each is better; no pictures."""
