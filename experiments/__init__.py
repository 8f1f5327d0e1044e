"""What a user types and what spans runs: command line, sweeps, comparisons."""
