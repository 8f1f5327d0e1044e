"""Real faces and finished sets as they lie on disk: a reader per layout, all giving the same rows; no mixing."""

from datamodules.readers.aff_wild2 import AffWild2Reader
from datamodules.readers.aff_wild2_affect import AffWild2AffectReader
from datamodules.readers.aff_wild2_mtl import AffWild2MTLReader
from datamodules.readers.aff_wild2_units import AffWild2UnitsReader
from datamodules.readers.affectnet import AffectNetReader
from datamodules.readers.affectnet_tables import AffectNetTablesReader
from datamodules.readers.ck48 import CK48Reader
from datamodules.readers.ck_plus import CKPlusReader
from datamodules.readers.drawn import DrawnReader
from datamodules.readers.emonet_face import EmoNetFaceBinaryReader, EmoNetFaceHQReader
from datamodules.readers.expw import ExpWReader
from datamodules.readers.fer2013 import FER2013Reader
from datamodules.readers.ferv39k import FERV39kReader
from datamodules.readers.image_captions import ImageCaptionsReader
from datamodules.readers.image_folder import ImageFolderReader
from datamodules.readers.jaffe import JAFFEReader
from datamodules.readers.joined import JoinedReader
from datamodules.readers.kdef import KDEFReader
from datamodules.readers.lsd import LSDReader
from datamodules.readers.oulu_casia import OuluCASIAReader
from datamodules.readers.picture_list import PictureListReader
from datamodules.readers.raf_db import RAFDBReader
from datamodules.readers.raf_db_compound import RAFDBCompoundReader
from datamodules.readers.reader import Reader
from datamodules.readers.remapped import RemappedReader
from datamodules.readers.sfew import SFEWReader
from datamodules.readers.synthetic_set import SyntheticSetReader
from datamodules.readers.table_of_pictures import TableOfPicturesReader

__all__ = [
    "AffWild2AffectReader",
    "AffWild2MTLReader",
    "AffWild2Reader",
    "AffWild2UnitsReader",
    "AffectNetReader",
    "AffectNetTablesReader",
    "CK48Reader",
    "CKPlusReader",
    "DrawnReader",
    "EmoNetFaceBinaryReader",
    "EmoNetFaceHQReader",
    "ExpWReader",
    "FER2013Reader",
    "FERV39kReader",
    "ImageCaptionsReader",
    "ImageFolderReader",
    "JAFFEReader",
    "JoinedReader",
    "KDEFReader",
    "LSDReader",
    "OuluCASIAReader",
    "PictureListReader",
    "RAFDBCompoundReader",
    "RAFDBReader",
    "Reader",
    "RemappedReader",
    "SFEWReader",
    "SyntheticSetReader",
    "TableOfPicturesReader",
]
