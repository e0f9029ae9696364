"""The files that a run leaves, their names, and whether they are there already."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from tiler.errors import OtherPolygonsError, OtherRunError, UsageError
from tiler.fingerprint import differences
from tiler.report import Report
from tiler.vector.options import SUFFIXES as SUFFIXES_OF_POLYGONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tiler.fingerprint import Fingerprint
    from tiler.vector.options import PolygonOptions

SUFFIXES: Final = {".tif", ".tiff"}
PROBABILITIES: Final = ".probabilities.tif"
PREVIEW: Final = ".tissue.png"
LONGEST_NAME: Final = 200
"""Bytes; file systems allow 255, and our suffixes need some."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The files of one run."""

    main: Path
    """The one that was named."""
    kind: str
    """One of `tiler.options.OUTPUTS`."""
    vector: PolygonOptions | None = None
    """Of the polygons that are wanted."""
    styled: bool = False
    """Whether a QGIS style lies beside the labels."""
    tissue: bool = False
    """Whether a preview of the tissue that was found goes with them."""

    @property
    def probabilities(self) -> Path:
        """Where probabilities go: beside the labels, or to the name that was given."""
        return self.main.with_suffix(PROBABILITIES) if self.kind == "both" else self.main

    @property
    def report(self) -> Path:
        """What was found and what it took."""
        return self.main.with_suffix(".report.json")

    @property
    def config(self) -> Path:
        """The options, for ``--config``."""
        return self.main.with_suffix(".config.toml")

    @property
    def style(self) -> Path:
        """How QGIS draws labels and polygons."""
        return self.main.with_suffix(".qml")

    @property
    def polygons(self) -> Path | None:
        """The labels as polygons."""
        return None if self.vector is None else self.vector.path(self.main)

    @property
    def preview(self) -> Path:
        """The slide as a thumbnail, its tissue outlined."""
        return self.main.with_suffix(PREVIEW)

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file, the one that was named first."""
        polygons = () if self.polygons is None else (self.polygons,)
        return (*self._of_pixels, *self.companions, *polygons)

    @property
    def _of_pixels(self) -> tuple[Path, ...]:
        """What takes the network to make."""
        return tuple(dict.fromkeys((self.main, self.probabilities, self.report)))

    @property
    def companions(self) -> tuple[Path, ...]:
        """Small files that can be made without it, as polygons can be made of the labels."""
        style, preview = self.styled and self.style, self.tissue and self.preview
        return tuple(path for path in (self.config, style, preview) if path)

    def check(self, source: str | Path) -> None:
        """Refuse names that cannot or should not be written, whatever the run is.

        Raises
        ------
        UsageError
            with the reason and the fix.
        """
        if self.main.suffix.lower() not in SUFFIXES:
            raise UsageError(f"the output is a GeoTIFF and ends in .tif, got {self.main}")
        check_name(self.main)
        for path in self.all:
            check_no_folder(path)
        self.check_sources((str(source),))

    def check_sources(self, names: Iterable[str]) -> None:
        """Refuse to replace a file that is read: the source, its sidecars, those of a VRT.

        Raises
        ------
        UsageError
            naming it.
        """
        for path in self.all:
            for name in names if path.exists() else ():
                if os.path.exists(name) and path.samefile(name):  # noqa: PTH110 - may be an address
                    raise UsageError(f"the output would replace the input {name}; choose another name")

    def refuse_existing(self, excused: Callable[[], bool], fingerprint: Fingerprint | None = None) -> None:
        """Refuse to write over anything, and say what it is.

        ``excused`` is asked after a file was seen, because another process may be putting it there.

        Raises
        ------
        UsageError
            if any of the files is there; an `OtherRunError` if another run of ours left it.
        """
        for path in self.all:
            if path.exists() and not excused():
                made = self.stored()
                if fingerprint is None or made is None:
                    raise UsageError(f"{path} exists; pass --overwrite to replace it")
                other = differences(made.fingerprint, fingerprint)
                how = f"made with another {other}" if other else "from a run of which other files are gone"
                raise OtherRunError(
                    f"{path} exists, {how}; pass --overwrite to replace it",
                    how,
                    made.fingerprint.get("source") != fingerprint["source"],
                )

    def finished(self, fingerprint: Fingerprint) -> Report | None:
        """The report of a run of this fingerprint whose maps are in their places; see `companions`."""
        made = self.stored()
        whole = made is not None and made.fingerprint == fingerprint
        return made if whole and all(p.is_file() for p in self._of_pixels) else None

    def lacks_polygons(self, report: Report) -> bool:
        """Whether polygons are wanted that are yet to be made of finished labels.

        Raises
        ------
        UsageError
            if there are others in their place; an `OtherPolygonsError` if they are ours.
        """
        if self.polygons is None or self.vector is None:
            return False
        if not self.polygons.exists():
            return True
        made = report.polygons.get(self.vector.format)
        if made is None:
            raise UsageError(f"{self.polygons} exists; remove it to have it made anew")
        other = differences({"polygons": made["options"]}, {"polygons": asdict(self.vector)})
        if other:
            raise OtherPolygonsError(
                f"{self.polygons} exists, made with another {other}; remove it to have it made anew", other
            )
        return False

    def outdated(self, made: Report, names: Iterable[str]) -> tuple[Path, ...]:
        """What was made with the output that is replaced, and is not made anew; none of ``names`` is it."""
        read = {os.path.realpath(name) for name in names}
        gone = (path for path in self._made_with(made) if path not in self.all and path.is_file())
        return tuple(path for path in gone if os.path.realpath(path) not in read)

    def strange(self, made: Report) -> tuple[Path, ...]:
        """What is in our way and was not made with the output that is there."""
        ours = (self.main, *self._made_with(made))
        wanted = (path for path in (self.probabilities, self.polygons) if path is not None)
        return tuple(path for path in wanted if path not in ours and path.exists())

    def _made_with(self, made: Report) -> tuple[Path, ...]:
        """The files beside an output that its report tells of."""
        kinds = [kind for kind in made.polygons if kind in SUFFIXES_OF_POLYGONS]
        both = made.fingerprint.get("options", {}).get("output") == "both"
        return (
            *(self.main.with_suffix(SUFFIXES_OF_POLYGONS[kind]) for kind in kinds),
            *([replace(self, kind="both").probabilities] if both else []),
            *([self.preview] if made.tissue is not None else []),
        )

    def stored(self) -> Report | None:
        """The report that lies here, if it is one of ours."""
        try:
            return Report.from_json(self.report.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, LookupError):
            return None


def is_result(path: Path) -> bool:
    """Whether a raster was written by a run of ours, as the report beside it says."""
    for suffix in (path.suffix, PROBABILITIES, PREVIEW):
        if path.name.endswith(suffix):
            report = Outputs(path.with_name(path.name.removesuffix(suffix) + ".tif"), "labels").stored()
            if report is None:
                continue
            names = {os.path.basename(name) for name in report.outputs}  # noqa: PTH119 - of any system
            if path.name in names or suffix == PREVIEW:
                return True
    return False


def check_name(path: Path) -> None:
    """Refuse names that cannot be written.

    Raises
    ------
    UsageError
        with the reason and the fix.
    """
    if not os.path.isdir(path.parent):  # noqa: PTH112 - which takes a name that is too long for no folder
        raise UsageError(f"the output's folder does not exist: {path.parent}; create it first")
    if not os.fspath(path).isprintable():
        raise UsageError(f"the output's name is printable text, got {str(path)!r}")
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise UsageError(f"the output's name has at most {LONGEST_NAME} bytes, got {path.name[:40]}...")


def check_no_folder(path: Path) -> None:
    """Refuse to write a file where a folder is.

    Raises
    ------
    UsageError
        naming it.
    """
    if path.is_dir():
        raise UsageError(f"the output is a file, got a directory: {path}")
