"""Options to TOML and back; the standard library only reads it."""

from __future__ import annotations

import json
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
    # Numbers, booleans, strings and lists of them are written alike in JSON and TOML.
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items() if value is not None)


def read_toml(path: Path) -> dict[str, Any]:
    """The keys of a TOML file.

    Raises
    ------
    UsageError
        if there is no such file or it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the configuration {path} is not TOML: {error}") from None
