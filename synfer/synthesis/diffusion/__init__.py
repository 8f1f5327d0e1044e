"""Faces by denoising: samplers, guidance, inversion, reading with a generator; no training, no other synthesiser."""
