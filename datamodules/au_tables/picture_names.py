"""Names of pictures for the rows of tables that hold none: frames of a video, rows by number."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter

PARTS: Mapping[str, int | str] = {"row": 0, "frame": 0, "frame0": 0, "frame1": 1, "file": "a", "name": "a"}
"""What a template may hold, with an example of each: number of the row in its file from 0; number of the frame as the
tool wrote it, counted from 0, and from 1; name of the file without ending, with its folders below ``path``; cell of the
column that names the picture or the video, without folder and ending."""

FRAMES = ("frame", "frame0", "frame1")
"""Those of them that need a column with the number of the frame."""


class PictureNames:
    """Makes the name of a picture from where its row stands.

    Args:
        template: such as "{file}/{frame:05d}.jpg".

    Attributes:
        parts: what the template holds.

    Raises:
        ValueError: it holds nothing, something unknown, or cannot be filled in.
    """

    def __init__(self, template: str) -> None:
        key = f"data.au_table.id_template: found '{template}'"
        expected = f"expected some of {', '.join(f'{{{part}}}' for part in PARTS)}, as in '{{file}}/{{frame:05d}}.jpg'"
        try:
            self.parts = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        except ValueError as error:
            raise ValueError(f"{key} ({error}), {expected}") from error
        if not self.parts or not self.parts <= set(PARTS):
            raise ValueError(f"{key}, {expected}")
        self._template = template
        try:
            self.name(**PARTS)
        except ValueError as error:
            raise ValueError(f"{key} ({error}), {expected}") from error

    @property
    def of_frames(self) -> bool:
        """Whether it holds the number of a frame."""
        return not self.parts.isdisjoint(FRAMES)

    def name(self, **parts: int | str) -> str:
        """Returns the name of a picture; what the template does not hold is not needed."""
        return self._template.format(**parts)
