"""The plain library under the Lightning rooms: numpy and torch, no Lightning, nothing of the rooms above."""
