"""Where tasks go: to workers that are started here, or to a scheduler at an address."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tiler.errors import UsageError


@dataclass(frozen=True, slots=True)
class Scheduler:
    """What ``--scheduler`` says."""

    address: str
    """tcp://HOST:PORT or tls://HOST:PORT; empty: workers of our own, on this machine."""
    workers: int = 0
    """Of our own."""

    @classmethod
    def parse(cls, text: str) -> Scheduler:
        """Read a scheduler.

        >>> Scheduler.parse("local:2").workers, Scheduler.parse("tls://node7:8786").address
        (2, 'tls://node7:8786')

        Raises
        ------
        UsageError
            if it is none.
        """
        if match := re.fullmatch(r"local:([1-9]\d{0,3})", text, re.ASCII):
            return cls("", int(match[1]))
        if re.fullmatch(r"(tcp|tls)://[^\s/]+:\d{1,5}", text, re.ASCII):
            return cls(text)
        raise UsageError(f"a scheduler is local:N, tcp://HOST:PORT or tls://HOST:PORT, got {text!r}")
