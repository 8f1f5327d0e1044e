"""EmoNet-Face: made faces whose forty emotions several people have judged."""

from datamodules.readers.emonet_face.reader import EmoNetFaceBinaryReader, EmoNetFaceHQReader

__all__ = ["EmoNetFaceBinaryReader", "EmoNetFaceHQReader"]
