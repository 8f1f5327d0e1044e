"""Many runs of train.py from one W&B sweep file, here or on SLURM; nothing of what a run is made of."""
