"""What the numbers of a table of action units mean, kept with the run that uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["intensity", "presence", "probability", "as given"]
"""How strongly it acts; whether it acts, 0 or 1; how sure the tool is that it acts; what the author took it for."""


@dataclass(frozen=True)
class AUScale:
    """The scale of a column.

    Attributes:
        kind: what its numbers say.
        highest: the number that becomes 1; 0 stays 0.
        beyond: numbers so far outside [0, highest] are clipped and counted, others refused; 0 = none is clipped.
    """

    kind: Kind
    highest: float = 1.0
    beyond: float = 0.0


@dataclass(frozen=True)
class AUColumn:
    """One action unit of a table.

    Attributes:
        name: as the project spells it ("AU12").
        column: as the file spells it ("AU12_r").
        scale: of its numbers.
    """

    name: str
    column: str
    scale: AUScale


@dataclass(frozen=True)
class AUSource:
    """Who wrote a table, and what its columns are.

    Attributes:
        tool: "OpenFace 2, stills".
        columns: one per action unit, in order.
        not_read: columns that look like action units and were passed over, for their ending is none of the tool's.
        clipped: numbers that lay a little outside their scale.
        format: the entry of ``AU_TABLES`` that read it; "" = unknown.
        detected: whether it was found by its header, and not asked for.
    """

    tool: str
    columns: tuple[AUColumn, ...]
    not_read: tuple[str, ...] = ()
    clipped: int = 0
    format: str = ""
    detected: bool = False

    def names_of(self, kind: Kind) -> tuple[str, ...]:
        """Returns the action units whose numbers are of this kind, in order."""
        return tuple(column.name for column in self.columns if column.scale.kind == kind)

    @property
    def presence_only(self) -> tuple[str, ...]:
        """Action units of which the table says whether they act, and not how strongly."""
        return self.names_of("presence")

    def __str__(self) -> str:
        """One line for the log."""
        kinds: dict[tuple[str, float], list[str]] = {}
        for column in self.columns:
            kinds.setdefault((column.scale.kind, column.scale.highest), []).append(column.name)
        said = [f"{kind} in [0, {highest:g}] of {', '.join(names)}" for (kind, highest), names in kinds.items()]
        if self.clipped:
            said.append(f"{self.clipped} numbers a little outside their scale were clipped to it")
        if self.not_read:
            said.append(f"not read {', '.join(self.not_read)}")
        found = " (recognised)" if self.detected else ""
        return f"{self.tool}{found}: {'; '.join(said)}"

    def record(self) -> dict[str, Any]:
        """Returns the same as plain types, for summary.json."""
        return {
            "tool": self.tool,
            "format": self.format,
            "detected": self.detected,
            "columns": {
                c.name: {"column": c.column, "kind": c.scale.kind, "scale": [0, c.scale.highest]} for c in self.columns
            },
            "not_read": list(self.not_read),
            "clipped": self.clipped,
        }
