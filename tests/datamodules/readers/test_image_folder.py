"""Image folders: names become labels, bad files are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from jsonargparse import ArgumentParser
from PIL import Image

from datamodules.readers import Reader
from datamodules.readers.image_folder import ImageFolderReader
from datamodules.rows.provenance import content_hash


def save(path: Path, seed: int, size: tuple[int, ...] = (16, 16, 3)) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("Happiness", "angry", "sad")):
        for split in ("train", "valid"):
            for number in range(2):
                save(tmp_path / split / name / f"{number}.png", seed=10 * seed + number + 100 * (split == "valid"))
    return tmp_path


def test_reads_names_in_canonical_order(root: Path) -> None:
    reader = ImageFolderReader(str(root))
    assert reader.label_space == ("happy", "sad", "anger")
    table = reader.read("train")
    assert table.class_counts() == {"happy": 2, "sad": 2, "anger": 2}
    assert table.sample_id[0] == "train/Happiness/0.png"
    batch = table.images.batch(np.array([0]))
    assert batch.shape == (1, 3, 16, 16)
    assert content_hash(batch[0].permute(1, 2, 0).numpy()) == table.content_hash[0]
    assert len(reader.read("val")) == 6


def test_label_space_leaves_out_others(root: Path) -> None:
    table = ImageFolderReader(str(root), label_space=["happy", "sad"]).read("train")
    assert len(table) == 4
    assert table.report.excluded == {"expression 'anger' is outside the label space": 2}
    assert ImageFolderReader(str(root), label_space="ferplus8").read("train").soft_label.shape == (6, 8)


def test_image_size(root: Path) -> None:
    save(root / "train" / "sad" / "odd.png", 5, (20, 12))
    with pytest.raises(ValueError, match=r"odd\.png: found 20x12 pixels, expected 16x16 .*\(1 bad of 7"):
        ImageFolderReader(str(root)).read("train")
    table = ImageFolderReader(str(root), image_size=8).read("train")
    assert table.images.batch(np.arange(7)).shape == (7, 3, 8, 8)


def test_bad_files_are_named_or_skipped(root: Path) -> None:
    (root / "train" / "sad" / "text.jpg").write_text("no image")
    Image.new("L", (16, 16)).save(root / "train" / "sad" / "black.png")
    save(root / "train" / "bored" / "0.png", 1)
    with pytest.raises(ValueError, match=r"0\.png: unknown expression 'bored'.*\(3 bad of 9 samples") as caught:
        ImageFolderReader(str(root)).read("train")
    assert "\n" not in str(caught.value)
    table = ImageFolderReader(str(root), on_bad_sample="skip").read("train")
    assert len(table) == 6 and len(table.report.skipped) == 3
    assert any("black.png: found a black image" in line for line in table.report.skipped)


def test_what_is_left_out_is_counted_with_its_reason(root: Path) -> None:
    save(root / "train" / "sad" / ".ipynb_checkpoints" / "0-checkpoint.png", 60)
    save(root / "train" / ".ipynb_checkpoints" / "0-checkpoint.png", 61)
    save(root / "train" / "sad" / "._0.png", 62)
    save(root / "train" / "beside.png", 63)
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
        (root / "train" / "sad" / name).write_text("no image")
    table = ImageFolderReader(str(root)).read("train")
    assert len(table) == 6 and table.report.read == 14 and not table.report.skipped
    hidden = "train/.ipynb_checkpoints/0-checkpoint.png, train/sad/._0.png, "
    assert table.report.excluded == {
        f"hidden ({hidden}train/sad/.ipynb_checkpoints/0-checkpoint.png)": 3,
        "beside the class folders (train/beside.png)": 1,
        "no image that can be opened here, by its suffix '.txt' "
        "(train/sad/a.txt, train/sad/b.txt, train/sad/c.txt and 1 more)": 4,
    }


def test_every_format_that_pillow_opens(root: Path) -> None:
    for number, suffix in enumerate(("tif", "TIFF", "gif", "jfif", "ppm", "avif", "webp", "bmp", "jp2")):
        try:
            save(root / "train" / "sad" / f"more{number}.{suffix}", 70 + number)
        except (KeyError, OSError):  # this Pillow was built without the library
            (root / "train" / "sad" / f"more{number}.{suffix}").unlink(missing_ok=True)
    count = len(list((root / "train" / "sad").iterdir()))
    assert count > 8
    table = ImageFolderReader(str(root)).read("train")
    assert table.class_counts()["sad"] == count and not table.report.excluded
    Image.fromarray(np.random.default_rng(0).random((16, 16)).astype(np.float32)).save(root / "train/sad/float.tif")
    with pytest.raises(ValueError, match=r"float\.tif: .*pixels of floating-point numbers"):
        ImageFolderReader(str(root)).read("train")


def test_linked_folders_are_entered_once(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save(elsewhere / "more" / "0.png", 80)
    save(elsewhere / "anger" / "0.png", 81)
    sad = root / "train" / "sad"
    (sad / "linked").symlink_to(elsewhere / "more")
    (elsewhere / "more" / "back").symlink_to(sad)  # a loop
    (sad / "again").symlink_to(root / "train" / "angry")  # another class
    (sad / "gone.png").symlink_to(elsewhere / "nothing.png")
    (root / "train" / "disgust").symlink_to(elsewhere / "anger")
    table = ImageFolderReader(str(root)).read("train")
    assert table.class_counts() == {"happy": 2, "sad": 3, "disgust": 1, "anger": 2}
    assert "train/sad/linked/0.png" in table.sample_id
    assert table.report.excluded == {
        "a link to a folder that is read already (train/sad/again, train/sad/linked/back)": 2,
        "a link to nothing (train/sad/gone.png)": 1,
    }


def test_two_folders_of_one_split(root: Path) -> None:
    (root / "Validation").mkdir()
    with pytest.raises(ValueError, match="found the folders Validation and valid for one split") as caught:
        ImageFolderReader(str(root))
    assert "\n" not in str(caught.value)


def test_the_first_three_bad_files_are_named(root: Path) -> None:
    for number in range(4):
        (root / "train" / "sad" / f"bad{number}.png").write_text("no image")
    with pytest.raises(ValueError, match=r"bad0\.png: .*; .*bad1\.png: .*; .*bad2\.png: .*\(4 bad of 10 samples"):
        ImageFolderReader(str(root)).read("train")


def test_missing_things(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.reader\.init_args\.root: found no folder"):
        ImageFolderReader(str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="found no split"):
        ImageFolderReader(str(root / "train" / "sad"))
    with pytest.raises(ValueError, match="no folder for split 'test'"):
        ImageFolderReader(str(root)).read("test")
    with pytest.raises(ValueError, match="unknown label space"):
        ImageFolderReader(str(root), label_space="basic9")
    (root / "test" / "sad").mkdir(parents=True)
    with pytest.raises(ValueError, match="found no usable image"):
        ImageFolderReader(str(root)).read("test")


def test_without_folders_of_splits_all_is_training(root: Path) -> None:
    reader = ImageFolderReader(str(root / "train"))
    assert reader.has_split("train") and not reader.has_split("val")
    table = reader.read("train")
    assert len(table) == 6 and table.sample_id[0] == "Happiness/0.png"
    with pytest.raises(ValueError, match=r"no folder for split 'val' .* or --data\.val_fraction 0\.1"):
        reader.read("val")


def test_numbered_folders_need_their_meaning(tmp_path: Path) -> None:
    for number in (1, 4, 5, 9):
        for face in range(2):
            save(tmp_path / "train" / str(number) / f"{face}.png", seed=10 * number + face)
    with pytest.raises(ValueError, match=r"the folders 1, 4, 5, 9 in .*class_map affectnet \(0 neutral"):
        ImageFolderReader(str(tmp_path))
    reader = ImageFolderReader(str(tmp_path), class_map={"1": "surprise", "4": "joy", "5": "sadness", "9": None})
    assert reader.label_space == ("happy", "sad", "surprise")
    table = reader.read("train")
    assert table.class_counts() == {"happy": 2, "sad": 2, "surprise": 2}
    assert table.report.excluded == {"class_map leaves out folder '9'": 2}


def test_pictures_of_any_size_are_read_at_the_size_of_the_run(root: Path) -> None:
    save(root / "train" / "sad" / "odd.png", 5, (20, 12))
    reader = ImageFolderReader(str(root))
    reader.fit_size(8)
    assert reader.read("train").images.batch(np.arange(7)).shape == (7, 3, 8, 8)
    reader = ImageFolderReader(str(root), image_size=12)
    reader.fit_size(8)
    assert reader.read("train").images.batch(np.arange(7)).shape == (7, 3, 12, 12)


@pytest.mark.parametrize("text", ["rafdb", "{1: surprise, 2: fear, 3: null}", "null"])
def test_class_map_from_the_command_line(root: Path, text: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Reader, "reader")
    words = ["--reader=ImageFolderReader", f"--reader.init_args.root={root}", f"--reader.init_args.class_map={text}"]
    found = parser.parse_args(words)
    reader = parser.instantiate_classes(found).reader
    assert len(reader.read("train")) == 6 and type(found.reader.init_args.class_map) in (str, dict, type(None))


def test_select_keeps_order(root: Path) -> None:
    table = ImageFolderReader(str(root)).read("train")
    part = table.select(np.array([4, 1]))
    assert (part.images.batch(np.array([0])) == table.images.batch(np.array([4]))).all()


@pytest.mark.parametrize(("text", "space"), [("ferplus8", 8), ("[happiness, sad]", 2), ("null", 3)])
def test_label_space_from_the_command_line(root: Path, text: str, space: int) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Reader, "reader")
    config = parser.parse_args(["--reader=ImageFolderReader", f"--reader.root={root}", f"--reader.label_space={text}"])
    reader = ImageFolderReader(**config.reader.init_args.as_dict())
    assert len(reader.label_space) == space
