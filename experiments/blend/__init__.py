"""Classifiers of several runs made into one by the mean of their weights."""
