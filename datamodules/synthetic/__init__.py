"""Synthetic faces at rest: the pool of a rank and the Parquet sets; nothing that makes faces."""
