"""Many runs from one W&B sweep file: ``python sweep.py configs/sweeps/<name>.yaml``, here or on SLURM."""

from experiments.sweep.sweep_command import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
