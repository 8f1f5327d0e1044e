"""Finished runs compared: groups, intervals, warnings, report; neither torch nor Lightning, so it starts fast."""
