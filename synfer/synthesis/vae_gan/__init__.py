"""Faces from perturbed codes of real ones: settings, losses and the synthesiser of a VAE-GAN; no training."""
