"""What can be wrong with a data set, tried on every reader: right, or one line with the count and the first three."""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from datamodules import readers
from datamodules.readers import reader as reader_module
from tests.fixtures import published_sets as sets
from tests.fixtures.caption_sets import drawn_pairs, write_parquet
from tests.fixtures.published_sets import FEW, Painter, rows_of

few_pictures = pytest.mark.filterwarnings(FEW)


@dataclass(frozen=True)
class Case:
    """One reader on its layout.

    Attributes:
        build: writes the data set.
        read: its reader.
        unknown: makes labels unknown; returns how many samples are bad then, at least four.
        lose: takes one picture away; returns what names it.
        counted: whether a lost picture can only be seen by the number of pictures: nothing lists it.
        reorder: writes the lines of its list in another order; None = there is none.
        shift: counts all codes from one more; None = labels are names.
        split: which is read.
    """

    build: Callable[[Path], Path]
    read: Callable[..., Any]
    unknown: Callable[[Path], int]
    lose: Callable[[Path], str]
    counted: bool = False
    reorder: Callable[[Path], None] | None = None
    shift: Callable[[Path], None] | None = None
    split: str = "train"


def edit(path: Path, change: Callable[[int, str], str]) -> None:
    """Changes lines of a text by their numbers from 0."""
    path.write_text("".join(change(n, line) for n, line in enumerate(path.read_text().splitlines(keepends=True))))


def reverse(path: Path, header: int = 0) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:header] + lines[: header - 1 if header else None : -1]) + "\n")


def rename(*pairs: tuple[Path, Path]) -> None:
    for old, new in pairs:
        old.rename(new)


def lose(path: Path) -> str:
    path.unlink()
    return path.stem


def files_in(*folders: Path) -> int:
    return sum(len(list(folder.iterdir())) for folder in folders)


def unknown_folders(root: Path, *names: str) -> int:
    """Gives folders names that mean nothing; returns how many files they hold."""
    folders = [root / name for name in names]
    count = files_in(*folders)
    rename(*((folder, folder.with_name(f"bored{n}")) for n, folder in enumerate(folders)))
    return count


RAF_LIST = Path("basic/EmoLabel/list_patition_label.txt")


def raf(part: str) -> Case:
    place = Path(part) / "EmoLabel" / "list_patition_label.txt"
    reader = readers.RAFDBReader if part == "basic" else readers.RAFDBCompoundReader

    def unknown(root: Path) -> int:
        edit(root / place, lambda n, line: re.sub(r" \d+$", " 99", line, flags=re.M) if n in (0, 1, 3, 4) else line)
        return 4

    return Case(
        build=lambda root: sets.raf_db(root, part=part),
        read=lambda root, **more: reader(str(root), **more),
        unknown=unknown,
        lose=lambda root: lose(root / part / "Image/aligned/train_00003_aligned.jpg"),
        reorder=lambda root: reverse(root / place),
        shift=lambda root: edit(root / place, lambda n, line: f"{line.split()[0]} {int(line.split()[1]) + 1}\n"),
    )


def npy_codes(root: Path, change: Callable[[int], int]) -> None:
    for path in sorted((root / "train_set" / "annotations").glob("*_exp.npy")):
        np.save(path, np.array(str(change(int(str(np.load(path)))))))


def column(path: Path, place: int, change: Callable[[int, str], str], header: int = 1) -> None:
    lines = [line.split(",") for line in path.read_text().splitlines()]
    for n, line in enumerate(lines[header:]):
        line[place] = change(n, line[place])
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")


def affectnet_unknown(root: Path) -> int:
    npy_codes(root, lambda code: 99 if code < 4 else code)
    return 4


TABLE = Path("Manually_Annotated_file_lists/training.csv")


def tables_unknown(root: Path) -> int:
    column(root / TABLE, 6, lambda n, code: "99" if n < 4 else code)
    return 4


LST = Path("label/label.lst")


def expw_codes(root: Path, change: Callable[[int, int], int]) -> None:
    def changed(n: int, line: str) -> str:
        *words, code = line.split()
        return " ".join([*words, str(change(n, int(code)))]) + "\n"

    edit(root / LST, changed)


def expw_unknown(root: Path) -> int:
    expw_codes(root, lambda n, code: 99 if n < 4 else code)
    return 4


def ck_codes(root: Path, change: Callable[[int, float], float]) -> None:
    for n, path in enumerate(sorted((root / "Emotion").rglob("*_emotion.txt"))):
        path.write_text(f"   {change(n, float(path.read_text())):.7e}\n")


def ck_unknown(root: Path) -> int:
    ck_codes(root, lambda n, code: 99 if n < 4 else code)
    return 4


def kdef_unknown(root: Path) -> int:
    for number in range(1, 5):
        folder = root / "KDEF_and_AKDEF/KDEF" / f"AF{number:02d}"
        rename((folder / f"AF{number:02d}HAS.JPG", folder / f"AF{number:02d}XXS.JPG"))
    return 4


def jaffe_unknown(root: Path) -> int:
    some = sorted(root.glob("*.HA1.*"))[:4]
    rename(*((path, path.with_name(path.name.replace(".HA1.", ".XX1."))) for path in some))
    return 4


def oulu_unknown(root: Path) -> int:
    for person in range(1, 5):
        folder = root / "PreProcess Img/VL_Acropped/Strong" / f"P{person:03d}"
        rename((folder / "Happiness", folder / "Bored"))
    return 4  # sequences


def oulu_lose(root: Path) -> str:
    folder = root / "PreProcess Img/VL_Acropped/Strong/P005/Fear"
    for number in (1, 2):
        lose(folder / f"00{number}.jpeg")
    return "P005/Fear"


CLIPS = Path("4_setups/All_scenes/train_All.csv")


def ferv_unknown(root: Path) -> int:
    edit(root / CLIPS, lambda n, line: f"{line.split()[0]} Bored\n" if n < 4 else line)
    return 4


def ferv_lose(root: Path) -> str:
    for path in (root / "2_ClipsforFaceCrop/Daily/Neutral/0002-train").iterdir():
        path.unlink()
    return "0002-train"


VIDEO = Path("Annotations/EXPR_Classification_Challenge/Train_Set/12-24.txt")


def aff_wild_unknown(root: Path) -> int:
    edit(root / VIDEO, lambda n, line: "99\n" if n in (4, 5, 6, 7) else line)
    return 4


def listed(root: Path) -> Path:
    painter, lines = Painter(), ["path,label"]
    for number in range(14):
        name = ("happy", "Sadness", "ANGRY", "fear", "neutral", "surprise", "Disgust")[number % 7]
        painter.save(root / f"{number}.png")
        lines.append(f"{number}.png,{name}")
    (root / "faces.csv").write_text("\n".join(lines) + "\n")
    return root


def list_unknown(root: Path) -> int:
    column(root / "faces.csv", 1, lambda n, name: "bored" if n < 5 else name)
    return 5


def folders(root: Path) -> Path:
    painter = Painter()
    for name in ("Happiness", "sad", "ANGRY"):
        for number in range(3):
            painter.save(root / "train" / name / f"{number}.png")
    return root


def parquet(root: Path) -> Path:
    write_parquet(root / "train.parquet", drawn_pairs(14))
    return root


def parquet_cells(root: Path, name: str, change: Callable[[int, Any], Any]) -> None:
    told = pq.read_table(root / "train.parquet")
    cells = [change(n, cell) for n, cell in enumerate(told[name].to_pylist())]
    pq.write_table(told.set_column(told.schema.get_field_index(name), name, [cells]), root / "train.parquet")


def parquet_unknown(root: Path) -> int:
    parquet_cells(root, "label", lambda n, name: "bored" if n < 4 else name)
    return 4


def parquet_lose(root: Path) -> str:
    parquet_cells(root, "image", lambda n, cell: {"bytes": None, "path": cell["path"]} if n == 3 else cell)
    return "train.parquet#3"


BINARY, HQ = Path("data/binary.csv"), Path("data/hq.csv")


def binary_unknown(root: Path) -> int:
    column(root / BINARY, 3, lambda n, name: "Boredom" if name in ("Anger", "Sadness", "Fear") else name)
    return sum("Boredom" in line for line in (root / BINARY).read_text().splitlines())


def hq_unknown(root: Path) -> int:
    with (root / HQ).open(newline="") as file:
        header, *rows = csv.reader(file)
    bad = 0
    for row in rows:
        if row[2] == "True" and row[0] != "face_1.png" and bad < 4:
            row[3] = str({**ast.literal_eval(row[3]), "Family|Boredom": 1})
            bad += 1
    with (root / HQ).open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return bad


def lsd_unknown(root: Path) -> int:
    return unknown_folders(root / "training_set_synthetic_images", "FEAR", "SADNESS")


def first_frame(root: Path) -> str:
    return lose(root / "cohn-kanade-images/S015/001/S015_001_00000003.png")


CASES: dict[str, Case] = {
    "RAFDBReader": raf("basic"),
    "RAFDBCompoundReader": raf("compound"),
    "AffectNetReader": Case(
        sets.affectnet,
        lambda root, **more: readers.AffectNetReader(str(root), **more),
        affectnet_unknown,
        lambda root: lose(root / "train_set/images/16.jpg"),
        shift=lambda root: npy_codes(root, lambda code: code + 1),
    ),
    "AffectNetTablesReader": Case(
        sets.affectnet_tables,
        lambda root, **more: readers.AffectNetTablesReader(str(root), image_size=16, **more),
        tables_unknown,
        lambda root: lose(root / "Manually_Annotated_Images/3/t002.jpg"),
        reorder=lambda root: reverse(root / TABLE, header=1),
        shift=lambda root: column(root / TABLE, 6, lambda n, code: str(int(code) + 1)),
    ),
    "ExpWReader": Case(
        sets.expw,
        lambda root, **more: readers.ExpWReader(str(root), image_size=16, **more),
        expw_unknown,
        lambda root: lose(root / "image/origin/pic3.jpg"),
        reorder=lambda root: reverse(root / LST),
        shift=lambda root: expw_codes(root, lambda n, code: code + 1),
    ),
    "SFEWReader": Case(
        sets.sfew,
        lambda root, **more: readers.SFEWReader(str(root), image_size=16, **more),
        lambda root: unknown_folders(root / "Train/Train_Aligned_Faces", "Happy", "Fear"),
        lambda root: lose(root / "Train/Train_Aligned_Faces/Sad/Film_1.png"),
        counted=True,
    ),
    "CKPlusReader": Case(
        sets.ck_plus,
        lambda root, **more: readers.CKPlusReader(str(root), **more),
        ck_unknown,
        first_frame,
        counted=True,
        shift=lambda root: ck_codes(root, lambda n, code: code + 1),
    ),
    "CK48Reader": Case(
        sets.ck48,
        lambda root, **more: readers.CK48Reader(str(root), **more),
        lambda root: unknown_folders(root, "fear"),
        lambda root: lose(root / "happy/S015_005_00000012.png"),
        counted=True,
    ),
    "KDEFReader": Case(
        lambda root: sets.kdef(root, people=5),
        lambda root, **more: readers.KDEFReader(str(root), image_size=16, **more),
        kdef_unknown,
        lambda root: lose(root / "KDEF_and_AKDEF/KDEF/BM05/BM05SAS.JPG"),
        counted=True,
    ),
    "JAFFEReader": Case(
        sets.jaffe,
        lambda root, **more: readers.JAFFEReader(str(root), **more),
        jaffe_unknown,
        lambda root: lose(next(root.glob("NM.FE1.*"))),
        counted=True,
    ),
    "OuluCASIAReader": Case(
        sets.oulu_casia,
        lambda root, **more: readers.OuluCASIAReader(str(root), last_frames=3, **more),
        oulu_unknown,
        oulu_lose,
    ),
    "FERV39kReader": Case(
        sets.ferv39k,
        lambda root, **more: readers.FERV39kReader(str(root), **more),
        ferv_unknown,
        ferv_lose,
        reorder=lambda root: reverse(root / CLIPS),
    ),
    "AffWild2Reader": Case(
        sets.aff_wild2,
        lambda root, **more: readers.AffWild2Reader(str(root), **more),
        aff_wild_unknown,
        lambda root: lose(root / "cropped_aligned/12-24/00005.jpg"),
        counted=True,
    ),
    "LSDReader": Case(
        sets.lsd,
        lambda root, **more: readers.LSDReader(str(root), **more),
        lsd_unknown,
        lambda root: lose(root / "training_set_synthetic_images/DISGUST/1.jpg"),
        counted=True,
    ),
    "PictureListReader": Case(
        listed,
        lambda root, **more: readers.PictureListReader(str(root), "faces.csv", **more),
        list_unknown,
        lambda root: lose(root / "6.png"),
        reorder=lambda root: reverse(root / "faces.csv", header=1),
    ),
    "ImageFolderReader": Case(
        folders,
        lambda root, **more: readers.ImageFolderReader(str(root), **{"label_space": ["happy", "sad", "anger"], **more}),
        lambda root: unknown_folders(root / "train", "Happiness", "ANGRY"),
        lambda root: lose(root / "train/sad/1.png"),
        counted=True,
    ),
    "TableOfPicturesReader": Case(
        parquet,
        lambda root, **more: readers.TableOfPicturesReader(str(root), **more),
        parquet_unknown,
        parquet_lose,
    ),
    "EmoNetFaceBinaryReader": Case(
        sets.emonet_binary,
        lambda root, **more: readers.EmoNetFaceBinaryReader(str(root), **more),
        binary_unknown,
        lambda root: lose(root / "images/00006.jpg"),
        reorder=lambda root: reverse(root / BINARY, header=1),
    ),
    "EmoNetFaceHQReader": Case(
        sets.emonet_hq,
        lambda root, **more: readers.EmoNetFaceHQReader(str(root), **more),
        hq_unknown,
        lambda root: lose(root / "images/face_1.png"),
        split="test",
    ),
}
WITHOUT_NUMBERS = ("PictureListReader", "ImageFolderReader", "TableOfPicturesReader", "AffWild2Reader")
"""Readers of any data set, and one whose frames nobody has counted alike."""

ELSEWHERE = {
    *("DrawnReader", "FER2013Reader", "ImageCaptionsReader", "JoinedReader", "RemappedReader"),
    *("AffWild2AffectReader", "AffWild2MTLReader", "AffWild2UnitsReader"),  # test_aff_wild2_lists.py
}
"""Readers that make their faces, have files of tests of their own for this, or read no labels of a layout."""

every_case = pytest.mark.parametrize("name", CASES)


def made(name: str, root: Path) -> tuple[Case, Path]:
    case = CASES[name]
    case.build(root)
    return case, root


def test_no_reader_is_left_out() -> None:
    found = {name for name in readers.__all__ if name not in ("Reader", "SyntheticSetReader")}
    assert found == CASES.keys() | ELSEWHERE
    assert all(issubclass(getattr(readers, name), reader_module.Reader) for name in found)


@few_pictures
@every_case
def test_unknown_labels_are_one_line_with_the_count_and_the_first_three(name: str, tmp_path: Path) -> None:
    case, root = made(name, tmp_path / "set")
    before = rows_of(case.read(root).read(case.split))
    bad = case.unknown(root)
    assert bad >= 4
    with pytest.raises(ValueError) as caught:
        case.read(root).read(case.split)
    said = str(caught.value)
    assert "\n" not in said and "expected" in said
    assert re.search(rf"\({bad} bad of \d+ samples; ", said), said
    assert len(said[: said.index(f" ({bad} bad of")].split("; ")) == 3, said
    skipped = case.read(root, on_bad_sample="skip").read(case.split)
    assert len(skipped.report.skipped) == bad
    kept = rows_of(skipped)
    assert kept.items() <= before.items() and len(kept) < len(before)


@few_pictures
@every_case
def test_a_missing_picture_is_named_or_told_by_the_number(name: str, tmp_path: Path) -> None:
    case, root = made(name, tmp_path / "set")
    before = rows_of(case.read(root).read(case.split))
    lost = case.lose(root)
    if not case.counted:
        with pytest.raises(ValueError, match=rf"{re.escape(lost)}.*expected .*\(1 bad of \d+ samples"):
            case.read(root).read(case.split)
    after = rows_of(case.read(root, on_bad_sample="skip").read(case.split))
    if name == "CKPlusReader":  # it takes the last frames that are there
        assert len(after) == len(before) and len(after.keys() - before.keys()) == 1
    else:
        assert after.items() < before.items()


@pytest.mark.parametrize("name", [name for name in CASES if name not in WITHOUT_NUMBERS])
def test_another_number_of_pictures_is_said(name: str, tmp_path: Path) -> None:
    case, root = made(name, tmp_path / "set")
    with pytest.warns(UserWarning, match=r"found [\d,]+ labelled pictures, the release has [\d,]+.*not comparable"):
        case.read(root).read(case.split)


@few_pictures
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.reorder is not None])
def test_lines_in_another_order_are_the_same_rows(name: str, tmp_path: Path) -> None:
    case, root = made(name, tmp_path / "set")
    before = rows_of(case.read(root).read(case.split))
    assert case.reorder is not None
    case.reorder(root)
    assert rows_of(case.read(root).read(case.split)) == before


@few_pictures
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.shift is not None])
def test_codes_that_count_from_one_more_are_refused(name: str, tmp_path: Path) -> None:
    case, root = made(name, tmp_path / "set")
    assert case.shift is not None
    case.shift(root)
    with pytest.raises(ValueError, match=r"expected .*\(\d+ bad of \d+ samples"):
        case.read(root).read(case.split)


MAPPED = {
    "SFEWReader": ("Train/Train_Aligned_Faces", "Happy"),
    "LSDReader": ("training_set_synthetic_images", "HAPPINESS"),
    "CK48Reader": ("", "happy"),
    "ImageFolderReader": ("train", "Happiness"),
}


@few_pictures
@pytest.mark.parametrize("name", MAPPED)
def test_folders_of_other_and_numbered_names_are_read_through_a_map(name: str, tmp_path: Path) -> None:
    case, root = made(name, tmp_path / "set")
    before = sorted(rows_of(case.read(root).read(case.split)).values())
    folder, happy = MAPPED[name]
    for new in ("3", "Frohsinn"):
        rename((root / folder / happy, root / folder / new))
        with pytest.raises(ValueError, match=r"3|Frohsinn"):
            case.read(root).read(case.split)
        table = case.read(root, class_map={new: "joy"}).read(case.split)
        assert sorted(rows_of(table).values()) == before
        left = case.read(root, class_map={new: None}).read(case.split)
        assert "happy" not in rows_of(left).values()
        assert any(f"class_map leaves out folder '{new}'" in reason for reason in left.report.excluded)
        rename((root / folder / new, root / folder / happy))
    with pytest.raises(ValueError, match=r"class_map: found 'rafdbb', expected rafdb, .*mean rafdb\?"):
        case.read(root, class_map="rafdbb")


@few_pictures
def test_sequences_and_clips_of_numbered_names_are_read_through_a_map(tmp_path: Path) -> None:
    case, root = made("OuluCASIAReader", tmp_path / "oulu")
    before = sorted(rows_of(case.read(root).read("train")).values())
    for person in (root / "PreProcess Img/VL_Acropped/Strong").iterdir():
        rename((person / "Anger", person / "0"))
    with pytest.raises(ValueError, match=r"found the number '0', expected a name, or what it means in .*\(10 bad of"):
        case.read(root).read("train")
    assert sorted(rows_of(case.read(root, class_map={"0": "angry"}).read("train")).values()) == before
    case, root = made("FERV39kReader", tmp_path / "ferv")
    before = sorted(rows_of(case.read(root).read("train")).values())
    order = ("Happy", "Sad", "Neutral", "Angry", "Surprise", "Disgust", "Fear")
    edit(root / CLIPS, lambda n, line: f"{line.split()[0]} {order.index(line.split()[1])}\n")
    assert sorted(rows_of(case.read(root, class_map="ferv39k").read("train")).values()) == before
