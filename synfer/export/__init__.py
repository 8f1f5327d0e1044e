"""Trained models in the formats of other libraries, and back; nothing of how synfer itself stores them."""
