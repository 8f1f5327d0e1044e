"""Where a run lives when others start its ranks (torchrun, SLURM), and what its ranks agree on; nothing of training."""
