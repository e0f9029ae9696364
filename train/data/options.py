"""What is trained on, as it was asked for, checked; `TrainOptions` builds these from its own fields."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Self

from tiler.errors import UsageError
from train.data.legend import Legend

if TYPE_CHECKING:
    from train.data.image import View

LAYOUTS: Final = ("auto", "pairs", "voc", "drive", "objects", "classes")
"""See `train.data.layouts`."""


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Where images and labels are, what they mean, and how they are divided."""

    classes: tuple[str, ...]
    """Names, in the order of their numbers 0 to K-1."""
    data: tuple[str, ...] = ()
    """Folders in a layout that is known, see `train.data.layouts`, and manifests called .csv."""
    layout: str = "auto"
    """Of those folders: one of `LAYOUTS`; ``auto`` is told by what they hold."""
    pair: tuple[tuple[str, str], ...] = ()
    """Each a raster and its labels: a mask, or vectors."""
    images: str | None = None
    """A folder of images, with ``masks``."""
    masks: str | None = None
    """A folder of their labels: ``NAME.*`` or ``NAME_mask.*`` belongs to the image ``NAME.*``."""
    manifest: str | None = None
    """A table of images, masks and parts, see `train.data.manifest`."""
    coding: str = "index"
    """What values, colours or names mean, see `train.data.legend`."""
    independent: bool = False
    """Whether a pixel may be of several classes, or of none: a yes or no per class."""
    field: str | None = None
    """Attribute of georeferenced polygons that tells the class; None: all are of the second class."""
    outside: str = ""
    """Class of pixels in no polygon; empty: the first."""
    bands: tuple[int, ...] | None = None
    """Band numbers from 1; None: all but alpha."""
    rgb: bool = False
    """Grey images become three equal bands."""
    nodata: float | None = None
    """Value of pixels without data, over what the files say."""
    resolution: float | None = None
    """Metres per pixel on the ground; None: the rasters' own."""
    mpp: float | None = None
    """Micrometres per pixel of slides; None: level 0."""
    resize: str | None = None
    """How pictures are brought to another size, see `train.data.resize`; None: not."""
    val: float = 0.15
    """Share of the data for validation, in (0, 1), where the data is not divided by itself."""
    test: float = 0.25
    """Share that is only looked at when training is over, in [0, 1)."""
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_classes()
        self._check_found()
        if not (0 < self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise UsageError(
                f"--val (above 0) and --test (at least 0) are shares that leave some to train on, "
                f"got {self.val} and {self.test}; e.g. 0.15 and 0.25"
            )
        self.legend()
        self.view()

    def _check_found(self) -> None:
        if not (self.data or self.pair or self.images is not None or self.manifest is not None):
            raise UsageError(
                "training needs data: give --pair RASTER MASK, --images DIR --masks DIR, --data DIR "
                "or --manifest FILE"
            )
        if (self.images is None) != (self.masks is None):
            raise UsageError("--images and --masks go together, got only one; give both")
        if self.layout not in LAYOUTS:
            raise UsageError(f"--layout is one of {', '.join(LAYOUTS)}, got {self.layout!r}")

    def _check_classes(self) -> None:
        if not 2 <= len(self.classes) <= 255 or not all(self.classes):
            raise UsageError(
                f"--classes names 2 to 255 classes, got {','.join(self.classes)!r}; "
                "e.g. --classes background,building"
            )
        if len(set(self.classes)) != len(self.classes):
            raise UsageError(f"class names differ from each other, got {','.join(self.classes)}")

    @classmethod
    def of(cls, options: object) -> Self:
        """Those of its fields that an object has."""
        names = [f.name for f in fields(cls) if hasattr(options, f.name)]
        return cls(**{name: getattr(options, name) for name in names})

    def legend(self) -> Legend:
        """What labels mean."""
        return Legend(self.classes, self.coding, self.outside, self.independent)

    def view(self) -> View:
        """How images are looked at."""
        from train.data.image import View
        from train.data.resize import Resize

        resize = None if self.resize is None else Resize.parse(self.resize)
        return View(self.bands, self.rgb, self.nodata, self.resolution, self.mpp, resize)
