"""Faces by a VAE-GAN: what its networks learn by, and faces from perturbed codes; no denoising, no Lightning."""
