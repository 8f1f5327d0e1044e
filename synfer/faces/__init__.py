"""What a face shows and how it is described: expressions, action units, captions, shapes; no networks."""
