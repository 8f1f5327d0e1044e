"""The plain library under the Lightning rooms: numpy and torch, no Lightning; nothing of callbacks, modules or data modules."""
