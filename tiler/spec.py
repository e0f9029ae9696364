"""What a model says about itself: `ModelSpec`, stored as JSON in the ONNX metadata.

This is the one place that reads and writes it. It knows nothing of ONNX, rasters or tiles.
"""

from __future__ import annotations

import colorsys
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from tiler.errors import InputError, UsageError
from tiler.resize import Resize

METADATA_KEY: Final = "gigatiler.model"
"""Key of the spec in the ONNX ``metadata_props``."""
SCHEMA: Final = 1
ACTIVATIONS: Final = ("logits", "softmax", "sigmoid", "none")
MAX_CLASSES: Final = 255
"""Labels are uint8 and 255 is nodata."""


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """One class: its name and how it is drawn."""

    name: str
    color: tuple[int, int, int]
    """Red, green, blue, 0 to 255."""

    def __post_init__(self) -> None:
        if not self.name:
            raise UsageError("a class has a name, got an empty one")
        if not str.isprintable(self.name):
            raise UsageError(f"a class's name is printable text, got {self.name!r}")
        if [*map(type, self.color)] != [int] * 3 or not all(0 <= c <= 255 for c in self.color):
            raise UsageError(f"a class colour is three integers from 0 to 255, got {self.color}")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How to feed a network and how to read what it returns."""

    bands: tuple[str, ...]
    """Name of each input channel, in order."""
    classes: tuple[ClassSpec, ...]
    """One per label value. A one-channel sigmoid network has two: its 0 and its 1."""
    activation: str = "logits"
    """What the network returns: ``logits`` (one channel: of a sigmoid, several: of a softmax), ``softmax``
    or ``sigmoid`` probabilities (several sigmoid channels are independent classes), or ``none``: scores
    whose largest wins and that are no probabilities."""
    scale: tuple[float, ...] = ()
    """Per band: raw pixels are multiplied by this first. Empty: 1."""
    mean: tuple[float, ...] = ()
    """Per band, in scaled units: subtracted next. Empty: 0."""
    std: tuple[float, ...] = ()
    """Per band, in scaled units: divided by last. Empty: 1."""
    threshold: float = 0.5
    """A sigmoid probability of at least this is the class. In (0, 1)."""
    stride: int | None = None
    """Total down-sampling: sides and tile origins are multiples of it. None: not known."""
    halo: int | None = None
    """Pixels on each side of a tile's core that its core depends on. None: not known."""
    exact: bool = False
    """Whether the network is shift-equivariant, so that tiles with this halo equal the whole image."""
    resolution: float | None = None
    """Ground size of a pixel that it was trained on, in metres. None: any."""
    resize: str | None = None
    """How whole pictures were brought to another size before it saw them, for `tiler.resize.Resize.parse`;
    None: not."""
    fill: tuple[float, ...] = ()
    """Per band, in raw units: what invalid pixels are filled with. Empty: the band's mean."""
    attribution: str = ""
    """Origin and licence of the weights and of the data behind them."""

    def __post_init__(self) -> None:
        if not self.bands:
            raise UsageError("a model has at least one band, got none")
        self._check_per_band()
        self._check_output()
        if self.stride is not None and self.stride < 1:
            raise UsageError(f"stride is at least 1, got {self.stride}")
        if self.halo is not None and self.halo < 0:
            raise UsageError(f"halo is at least 0, got {self.halo}")
        if self.resolution is not None and not self.resolution > 0:
            raise UsageError(f"resolution is metres per pixel above 0, got {self.resolution}")
        if self.resize is not None:
            Resize.parse(self.resize)
            if self.resolution is not None:
                raise UsageError(
                    f"a model is of pictures that are resized or of a resolution, got {self.resize} and "
                    f"{self.resolution:g} m"
                )

    def _check_per_band(self) -> None:
        for name in ("scale", "mean", "std", "fill"):
            values = getattr(self, name)
            if values and len(values) != len(self.bands):
                raise UsageError(f"{name} has one value per band ({len(self.bands)}), got {len(values)}")
        if any(not 0 < s < math.inf for s in self.std):
            raise UsageError(f"std is above 0, got {self.std}")
        if any(s == 0 or not math.isfinite(s) for s in self.scale):
            raise UsageError(f"scale is a number other than 0, got {self.scale}")
        if not all(map(math.isfinite, (*self.mean, *self.fill))):
            raise UsageError(f"mean and fill are numbers, got {self.mean} and {self.fill}")

    def _check_output(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"activation is one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            raise UsageError(f"a model has 1 to {MAX_CLASSES} classes, got {len(self.classes)}")
        if not 0 < self.threshold < 1:
            raise UsageError(f"threshold is between 0 and 1, got {self.threshold}")

    def to_json(self) -> str:
        """The spec as one line of JSON, the value stored under `METADATA_KEY`."""
        values = asdict(self)
        if self.resize is None:  # so that versions that do not know it read all other models
            del values["resize"]
        return json.dumps({"schema": SCHEMA, **values})

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read what `to_json` wrote.

        Raises
        ------
        InputError
            if the text is no such JSON, or holds a key that this version does not know.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"model metadata {METADATA_KEY!r} is JSON, got {text[:40]!r}: {error}") from None
        if not isinstance(raw, dict) or raw.pop("schema", None) != SCHEMA:
            raise InputError(
                f"model metadata {METADATA_KEY!r} has schema {SCHEMA}, got {text[:40]!r}; update tiler"
            )
        return cls.from_dict(raw)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> ModelSpec:
        """Build from plain JSON or TOML values; lists become tuples, an unknown key is an error."""
        unknown = set(raw) - {f.name for f in fields(cls)}
        if unknown:
            raise InputError(f"model metadata has unknown keys {sorted(unknown)}; update tiler")
        try:
            classes = tuple(ClassSpec(c["name"], tuple(c["color"])) for c in raw["classes"])
            plain: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items() if k != "classes"}
            return cls(classes=classes, **plain)
        except (KeyError, TypeError) as error:
            raise InputError(f"model metadata is incomplete or of the wrong type: {error!r}") from None


def default_classes(names: tuple[str, ...]) -> tuple[ClassSpec, ...]:
    """Classes with distinct colours: the first (background) is black, the rest go round the hues.

    >>> default_classes(("background", "building"))[1]
    ClassSpec(name='building', color=(230, 57, 57))
    """
    rest = max(len(names) - 1, 1)
    colors = [(0, 0, 0), *(_hue(i / rest) for i in range(len(names) - 1))]
    return tuple(ClassSpec(name, color) for name, color in zip(names, colors, strict=False))


def _hue(hue: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)
