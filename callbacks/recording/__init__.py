"""What a run keeps of itself: summary, metrics, checkpoints, W&B, its lock."""
