"""What learns and measures representations: views, losses, heads and methods of pre-training, probes; no Lightning."""
