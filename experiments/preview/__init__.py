"""A look at a data set: pictures of some of its rows, and what there is to know before training on it."""
