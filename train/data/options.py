"""What is trained on, as it was asked for, checked; `TrainOptions` builds these from its own fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tiler.errors import UsageError
from train.data.gaps import Gaps
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
    """How pictures are brought to another size, see `tiler.resize`; None: not."""
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
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed is a number from 0 to 2^63 - 1, got {self.seed}")
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
            example = self.classes[0] if len(self.classes) == 1 and self.classes[0] else "building"
            raise UsageError(
                f"--classes names 2 to 255 classes, got {','.join(self.classes)!r}; "
                f"e.g. --classes background,{example}"
            )
        if len(set(self.classes)) != len(self.classes):
            raise UsageError(f"class names differ from each other, got {','.join(self.classes)}")

    def legend(self) -> Legend:
        """What labels mean."""
        return Legend(self.classes, self.coding, self.outside, self.independent)

    def view(self) -> View:
        """How images are looked at."""
        from tiler.resize import Resize
        from train.data.image import View

        resize = None if self.resize is None else Resize.parse(self.resize)
        return View(self.bands, self.rgb, self.nodata, self.resolution, self.mpp, resize)


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """Which samples are drawn, and how much their pixels count."""

    balance: float = 0.0
    """Share of the samples that are centred on a pixel of a class drawn evenly, 0 to 1."""
    border_weight: float = 0.0
    """Added to the weight of a pixel in a gap of no width between two objects; the paper's w0 is 10."""
    border_sigma: float = 5.0
    """How wide such gaps are, pixels."""
    weigh_classes: bool = False
    """Whether classes count alike, however many pixels they have."""

    def __post_init__(self) -> None:
        if not 0 <= self.balance <= 1:
            raise UsageError(f"--balance is a share, 0 to 1, got {self.balance}")
        self.gaps()

    def gaps(self) -> Gaps | None:
        """How much more the pixels between objects count; None: no more."""
        return None if self.border_weight == 0 else Gaps(self.border_weight, self.border_sigma)


@dataclass(frozen=True, slots=True)
class AugmentOptions:
    """How strongly samples are changed."""

    flip_horizontal: float = 0.5
    """Probability of exchanging left and right."""
    flip_vertical: float = 0.0
    """Probability of exchanging top and bottom."""
    quarter_turns: float = 1.0
    """Probability of turning by 0, 90, 180 or 270 degrees, each as likely."""
    zoom: tuple[float, ...] = (1.0, 1.0)
    """Range of the magnification; 0.5 shows twice as much."""
    aspect: float = 0.0
    """Height against width changes by the quotient of two numbers in 1 +- this."""
    rotate: float = 0.0
    """Largest angle, degrees."""
    shift: float = 0.0
    """Largest shift along a side, share of the sample's side; crops lie anywhere as it is."""
    elastic: float = 0.0
    """Standard deviation, pixels, by which a grid of 3 x 3 nodes is displaced."""
    hue: float = 0.0
    """Largest change of hue, turns of the colour wheel; of three bands of uint8."""
    saturation: float = 0.0
    """Saturation is multiplied by a number in 1 +- this."""
    value: float = 0.0
    """And the value, HSV's brightness, too."""
    contrast: float = 0.25
    """Pixels are multiplied by a number between 1 / (1 + this) and 1 + this, all bands alike."""
    brightness: float = 0.25
    """Largest number added, all bands alike, standard deviations."""
    band_contrast: float = 0.0
    """As ``contrast``, of each band by itself."""
    band_brightness: float = 0.15
    """Standard deviation of a number added to each band: a cast of colour."""
    noise: float = 0.0
    """Standard deviation of noise added to each pixel."""
    shuffle_bands: float = 0.0
    """Probability of any order of the bands."""

    def __post_init__(self) -> None:
        for name in ("flip_horizontal", "flip_vertical", "quarter_turns", "shuffle_bands"):
            self._check(name, 1, "a probability, 0 to 1")
        for name in ("aspect", "saturation", "value"):
            self._check(name, 0.99, "at least 0 and below 1")
        for name in ("shift", "hue"):
            self._check(name, 0.5, "0 to 0.5")
        for name in ("elastic", "contrast", "brightness", "band_contrast", "band_brightness", "noise"):
            self._check(name, 1e6, "a number, at least 0")
        self._check("rotate", 180, "degrees, 0 to 180")
        if len(self.zoom) != 2 or not 0.1 <= self.zoom[0] <= self.zoom[1] <= 10:
            raise UsageError(f"--zoom is a range within 0.1 to 10, got {self.zoom}; e.g. 0.5,1.2")

    def _check(self, name: str, most: float, rule: str) -> None:
        if not 0 <= getattr(self, name) <= most:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is {rule}, got {getattr(self, name)}; 0 is off")

    @property
    def warps(self) -> bool:
        """Whether pixels are interpolated."""
        return self.zoom != (1, 1) or any((self.aspect, self.rotate, self.shift, self.elastic))

    @property
    def colours(self) -> bool:
        """Whether hue, saturation or value change."""
        return any((self.hue, self.saturation, self.value))
