"""Options to TOML and back; the standard library only reads it."""

from __future__ import annotations

import json
import math
import tomllib
from typing import TYPE_CHECKING, Any

from tiler.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def to_toml(values: dict[str, Any]) -> str:
    """Flat key = value lines; None is left out.

    >>> print(to_toml({"tile": 512, "bands": (1, 2), "memory": None, "blend": "auto"}), end="")
    tile = 512
    bands = [1, 2]
    blend = "auto"
    """
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items() if value is not None)


def _toml(value: Any) -> str:  # noqa: ANN401 - a number, a boolean, a string, or a list of them
    """JSON but for what the two write differently."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_toml(path: Path) -> dict[str, Any]:
    """The keys of a TOML file.

    Raises
    ------
    UsageError
        if there is no such file or it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the configuration {path} is not TOML: {error}") from None
