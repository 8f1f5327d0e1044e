"""``python -m synfer``: what the command ``synfer`` does, where it is not installed."""

from synfer.foundation.late_import import imported_late

if __name__ == "__main__":
    raise SystemExit(imported_late("experiments.command_line.console:main")())
