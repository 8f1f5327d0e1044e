"""What is trained: classifier, generator, annotator, augmenter."""
