"""The command that labels pictures with a trained classifier; the classifier, and who finds faces, stand below."""
