"""A page in the browser to play with a generator and a classifier; what it shows is made in ``experiments.sample``."""
