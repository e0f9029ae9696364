"""Every error a caller may want to catch, in one tree.

    TilerError
    +-- UsageError           (ValueError)    an option or argument breaks a rule       exit 2
    |   +-- InputError                       a raster or model cannot be used          exit 2
    |   +-- OtherRunError                    another run of ours made what is there    exit 2
    |   +-- OtherPolygonsError               its polygons were made otherwise          exit 2
    +-- DamageError          (OSError)       pixels turned out to be damaged           exit 1
    +-- RemoteError          (OSError)       a raster cannot be fetched                exit 1
    +-- MissingError         (RuntimeError)  the environment lacks what was asked for  exit 3
    |   +-- OutOfMemoryError (MemoryError)   not even the smallest plan fits           exit 3
    +-- OutputError          (OSError)       the result could not be written           exit 1
    +-- ClusterError         (RuntimeError)  workers or their scheduler are lost       exit 1

A message is one line: the rule, the value got, and the fix.
"""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """A library's message without its line breaks, cut where it becomes a dump."""
    return " ".join(str(error).split())[:300]


class TilerError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class UsageError(TilerError, ValueError):
    """An option or argument breaks a rule."""

    exit_code = 2


class InputError(UsageError):
    """A raster or model cannot be used."""


class OtherRunError(UsageError):
    """What is there was made, or begun, by a run of ours with other inputs or options."""

    def __init__(self, message: str, difference: str, other_input: bool) -> None:
        super().__init__(message, difference, other_input)
        self.difference = difference
        """What the other run was made with, in words."""
        self.other_input = other_input
        """Whether that was another file, or another version of the file."""

    def __str__(self) -> str:
        return str(self.args[0])


class OtherPolygonsError(UsageError):
    """The polygons of a finished output were made with other options."""

    def __init__(self, message: str, difference: str) -> None:
        super().__init__(message, difference)
        self.difference = difference
        """In what, in words."""

    def __str__(self) -> str:
        return str(self.args[0])


class DamageError(TilerError, OSError):
    """Pixels that were there when the file was opened cannot be read."""


class RemoteError(TilerError, OSError):
    """A raster at an address cannot be fetched, or changed while it was read."""


class MissingError(TilerError, RuntimeError):
    """The environment lacks something that was asked for."""

    exit_code = 3


class OutOfMemoryError(MissingError, MemoryError):
    """There is not enough memory for the smallest batch of the smallest tile."""


class OutputError(TilerError, OSError):
    """The result could not be written or did not read back as written."""


class ClusterError(TilerError, RuntimeError):
    """Workers of a cluster, or their scheduler, are lost."""
