"""When a run's record is written: summary, metrics, checkpoints, W&B, lock; the form of the files is synfer.runs."""
