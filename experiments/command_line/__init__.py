"""What the programs share that a user meets: how an error is told."""
