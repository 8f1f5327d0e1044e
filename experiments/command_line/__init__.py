"""The command line of one run, its configs, its folder, and how an error is told; no sweeps, no comparison."""
