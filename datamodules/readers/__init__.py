"""Real faces and finished sets as they lie on disk: a reader per layout, all giving the same rows; no mixing."""

from datamodules.readers.drawn import DrawnReader
from datamodules.readers.fer2013 import FER2013Reader
from datamodules.readers.image_captions import ImageCaptionsReader
from datamodules.readers.image_folder import ImageFolderReader
from datamodules.readers.joined import JoinedReader
from datamodules.readers.reader import Reader
from datamodules.readers.remapped import RemappedReader
from datamodules.readers.synthetic_set import SyntheticSetReader

__all__ = [
    "DrawnReader",
    "FER2013Reader",
    "ImageCaptionsReader",
    "ImageFolderReader",
    "JoinedReader",
    "Reader",
    "RemappedReader",
    "SyntheticSetReader",
]
