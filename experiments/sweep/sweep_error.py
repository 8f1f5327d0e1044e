"""What keeps a sweep from starting."""


class SweepError(Exception):
    """What keeps a sweep from starting, as one line: what was found, where, and what was expected."""
