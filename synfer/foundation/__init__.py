"""What every room stands on: random numbers, files, locks, ranks, checks; nothing about faces."""
