"""``synfer set``: what is done with synthetic sets once they are finished; how is in datamodules/synthetic."""
