"""What a training run is told, checked.

`TrainOptions` is the one place with default values.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from typing import Any, Final

from tiler.errors import UsageError
from tiler.toml import to_toml

PRECISIONS: Final = ("no", "bf16", "fp16")
FREE: Final = ("device", "threads", "workers")
"""A run may be carried on with others of these."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Everything that determines a run, but for where it writes. Values are as on the command line."""

    classes: tuple[str, ...]
    """Names, in the order of the mask's values 0 to K-1."""
    pair: tuple[tuple[str, str], ...] = ()
    """Each a georeferenced raster and its mask."""
    images: str | None = None
    """A folder of images, with `masks`."""
    masks: str | None = None
    """A folder of masks: ``NAME.*`` or ``NAME_mask.*`` belongs to the image ``NAME.*``."""
    bands: tuple[int, ...] | None = None
    """Band numbers from 1; None: all but alpha."""
    resolution: float | None = None
    """Metres per pixel on the ground to train at; None: the rasters' own."""
    depth: int = 4
    width: int = 8
    up: str = "transposed"
    crop: int = 192
    """Side of a training crop, pixels, a multiple of ``2**depth``."""
    batch: int = 8
    """Crops per step."""
    epochs: int = 30
    crops_per_epoch: int = 320
    """A multiple of ``batch``."""
    lr: float = 0.005
    """Peak learning rate."""
    val: float = 0.15
    """Share of the data for validation, in (0, 1)."""
    test: float = 0.25
    """Share that is only looked at when training is over, in [0, 1)."""
    seed: int = 0
    precision: str = "no"
    attribution: str = ""
    """Origin and licence of the data, kept in the model."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    threads: int | None = None
    """Of the CPU; None: as PyTorch chooses."""
    workers: int = 0
    """Processes that read crops; 0: the training process itself."""

    def __post_init__(self) -> None:
        self._check_data()
        self._check_network()
        self._check_loop()

    def _check_data(self) -> None:
        if not self.pair and self.images is None:
            raise UsageError("training needs data: give --pair RASTER MASK, or --images DIR --masks DIR")
        if (self.images is None) != (self.masks is None):
            raise UsageError("--images and --masks go together, got only one; give both")
        if not 2 <= len(self.classes) <= 255 or not all(self.classes):
            raise UsageError(
                f"--classes names 2 to 255 classes, got {','.join(self.classes)!r}; "
                "e.g. --classes background,building"
            )
        if len(set(self.classes)) != len(self.classes):
            raise UsageError(f"class names differ from each other, got {','.join(self.classes)}")
        if self.resolution is not None and not self.resolution > 0:
            raise UsageError(f"--resolution is metres per pixel above 0, got {self.resolution}")
        if not (0 < self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise UsageError(
                f"--val (above 0) and --test (at least 0) are shares that leave some to train on, "
                f"got {self.val} and {self.test}; e.g. 0.15 and 0.25"
            )

    def _check_network(self) -> None:
        if not 1 <= self.depth <= 6:
            raise UsageError(f"--depth is 1 to 6, got {self.depth}")
        if self.crop < 2 * 2**self.depth or self.crop % 2**self.depth:
            raise UsageError(
                f"--crop is a multiple of 2**depth = {2**self.depth} and at least twice it, got {self.crop}"
            )
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision is one of {', '.join(PRECISIONS)}, got {self.precision!r}")

    def _check_loop(self) -> None:
        for name in ("width", "batch", "epochs", "crops_per_epoch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{_flag(name)} is at least 1, got {getattr(self, name)}")
        if self.crops_per_epoch % self.batch:
            raise UsageError(
                f"--crops-per-epoch is a multiple of --batch {self.batch}, got {self.crops_per_epoch}"
            )
        if not self.lr > 0:
            raise UsageError(f"--lr is above 0, got {self.lr}")
        if self.workers < 0 or self.seed < 0:
            raise UsageError(f"--workers and --seed are at least 0, got {self.workers} and {self.seed}")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"--threads is at least 1, got {self.threads}")

    @property
    def steps(self) -> int:
        """Of the optimizer, in the whole run."""
        return self.epochs * self.crops_per_epoch // self.batch

    def to_toml(self) -> str:
        """One ``key = value`` line per option that is set; the file can be given as ``--config``."""
        return to_toml(asdict(self))

    def check_same(self, before: dict[str, Any]) -> None:
        """Refuse to carry on a run that began with other options, as its file holds them.

        Raises
        ------
        UsageError
            naming the first option that differs.
        """
        now = tomllib.loads(self.to_toml())
        for key in sorted((before.keys() | now.keys()) - set(FREE)):
            if before.get(key) != now.get(key):
                raise UsageError(
                    f"a run is carried on with the options it began with: {_flag(key)} was "
                    f"{before.get(key, 'not given')}, got {now.get(key, 'nothing')}; "
                    "give the old value, or --overwrite to start anew"
                )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
