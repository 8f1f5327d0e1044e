"""The command that exports a trained model; the formats themselves are the library's."""
