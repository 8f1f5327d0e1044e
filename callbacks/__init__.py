"""When something happens in a run: faces made and tested, labels written, a stop agreed on; no maths, no networks."""
