"""Models in diffusers' layout, of the shape of Stable Diffusion 1.x and 2.x: found, looked at, loaded; no training."""
