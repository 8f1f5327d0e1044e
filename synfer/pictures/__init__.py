"""Pictures of faces and of scores; no numbers are computed here."""
