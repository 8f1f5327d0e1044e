"""FER2013 and its FER+ votes: the reader, the layouts on disk and the counting of votes; no other data set."""

from datamodules.readers.fer2013.reader import FER2013Reader

__all__ = ["FER2013Reader"]
