"""What is done with whole runs: command line, sweeps, comparisons; nothing of what happens inside one."""
