"""A few faces from a trained generator, by words or from the page; no set of them, which ``predict`` makes."""
