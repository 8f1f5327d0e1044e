"""Many runs of train.py from one W&B sweep file: read it, expand it, run it here or on SLURM."""
