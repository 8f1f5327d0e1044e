"""Denoising, inversion and guidance in plain torch: no Lightning here."""
