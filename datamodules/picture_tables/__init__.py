"""Sets that hold their pictures: columns read as columns, pictures where they lie; labels are not judged here."""
