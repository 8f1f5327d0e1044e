"""Networks, and how weights from elsewhere become one; no optimiser, no denoising, no Lightning."""
