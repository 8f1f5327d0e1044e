"""What the names of class folders mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.readers.folder_names import CODINGS, FolderNames
from synfer.faces.expressions import EXPRESSIONS


@pytest.mark.parametrize(
    ("folder", "expression"),
    [("joy", "happy"), ("Angry", "anger"), ("3_happy", "happy"), ("07 - Suprise", "surprise"), ("Scared", "fear")],
)
def test_words(folder: str, expression: str) -> None:
    assert FolderNames().expression(folder) == expression


def test_numbers_of_public_sets() -> None:
    assert FolderNames("rafdb").expression("1") == "surprise" and FolderNames("rafdb").expression("07") == "neutral"
    assert FolderNames("affectnet").expression("1") == "happy" and FolderNames("affectnet").expression("8") is None
    assert FolderNames("fer2013").expression("0") == "anger"
    for coding in CODINGS.values():
        named = [name for name in coding.values() if name is not None]
        assert len(set(named)) == len(named) and set(named) <= set(EXPRESSIONS)


def test_a_map_of_ones_own() -> None:
    names = FolderNames({"smile": "joy", "1": "fear", "bad": None})
    assert [names.expression(name) for name in ("Smile", "001", "bad", "sad")] == ["happy", "fear", None, "sad"]


def test_what_means_nothing_is_named() -> None:
    with pytest.raises(ValueError, match=r"'rafbd', expected rafdb, affectnet, fer2013, .*did you mean rafdb\?"):
        FolderNames("rafbd")
    with pytest.raises(ValueError, match=r"class_map\.smile: unknown expression 'smiling'"):
        FolderNames({"smile": "smiling"})
    with pytest.raises(ValueError, match=r"'happi'.*did you mean happ\?.*class_map '\{happi: …\}'"):
        FolderNames().expression("happi")


def test_numbers_without_a_meaning_are_refused_with_the_codings_that_fit() -> None:
    folders = [Path(str(number)) for number in range(1, 8)]
    with pytest.raises(ValueError, match=r"folders 1, 2, 3, 4, 5, 6, 7 in 'faces'") as caught:
        FolderNames().refuse_unexplained_numbers(folders, Path("faces"))
    line = str(caught.value)
    assert "class_map rafdb (1 surprise" in line and "class_map affectnet (0 neutral" in line and "\n" not in line
    assert "fer2013" not in line  # has no 7
    FolderNames("rafdb").refuse_unexplained_numbers(folders, Path("faces"))
    with pytest.raises(ValueError, match=r"the folder 8 .* no entry"):
        FolderNames("rafdb").refuse_unexplained_numbers([*folders, Path("8")], Path("faces"))
