"""Labels from votes: voting, rectification, reliability, tables of labels; no networks."""
