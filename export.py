"""A trained model for other libraries: ``python export.py CHECKPOINT --what lora --out FOLDER``."""

from experiments.export.export_command import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
