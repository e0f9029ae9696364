"""What a person or a program sees while a run goes on: a bar, JSON lines, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tiler.events import BlockStored, Event, Finishing, Noted, Polygonising

if TYPE_CHECKING:
    from tiler.ports import Observer


class Bar:
    """A tqdm bar in megapixels of the result."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar: Any = None
        self._make: Any = tqdm

    def __call__(self, event: Event) -> None:
        """Advance, or say something above the bar."""
        if isinstance(event, BlockStored):
            if self._bar is None:
                # disable=None: no bar unless stderr is a terminal.
                self._bar = self._make(
                    total=event.total,
                    initial=event.done - event.pixels,
                    unit="px",
                    unit_scale=True,
                    disable=None,
                    dynamic_ncols=True,
                )
            self._bar.update(event.pixels)
            if event.done == event.total:
                self._bar.close()
        elif isinstance(event, Finishing):
            click.echo(f"building and verifying {event.path}", err=True)
        elif isinstance(event, Polygonising):
            click.echo(f"making polygons: {event.path}", err=True)
        elif isinstance(event, Noted):
            click.echo(event.message, err=True)


def json_lines(event: Event) -> None:
    """Each event as one line of JSON on stderr."""
    click.echo(event.to_json(), err=True)


def observer(log: str, quiet: bool) -> Observer:
    """The onlooker that ``--log`` and ``--quiet`` ask for."""
    from tiler.events import ignore

    if log == "json":
        return json_lines
    return ignore if quiet else Bar()
