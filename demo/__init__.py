"""``make demo``: from nothing to a table and a picture; no part of the library."""
