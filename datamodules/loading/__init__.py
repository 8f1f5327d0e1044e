"""From rows to batches: samplers, loaders, augmentation; no reading of files."""
