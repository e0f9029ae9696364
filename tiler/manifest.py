"""What a run directory says of itself: what its result depends on, and the plan that all resumes keep."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from tiler.errors import UsageError
from tiler.fingerprint import differences
from tiler.grid import Axis, TileGrid
from tiler.planning import Plan

if TYPE_CHECKING:
    from tiler.fingerprint import Fingerprint

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """Written once, by the first process of a run."""

    fingerprint: Fingerprint
    plan: Plan

    def to_json(self) -> str:
        """Indented JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """The inverse of `to_json`.

        Raises
        ------
        UsageError
            if the text is no manifest of this version.
        """
        try:
            values = json.loads(text)
            if values["format"] != FORMAT:
                raise UsageError(f"a manifest of format {FORMAT} is understood, got {values['format']}")
            return cls(values["fingerprint"], _plan(values["plan"]))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UsageError(f"it is no manifest: {error}") from None

    def differences(self, fingerprint: Fingerprint) -> str:
        """What another run would make differently, in words; empty if nothing."""
        return differences(self.fingerprint, fingerprint)


def _plan(values: dict[str, Any]) -> Plan:
    axes = values.pop("grid")
    return Plan(TileGrid(Axis(**axes["rows"]), Axis(**axes["columns"])), **values)
