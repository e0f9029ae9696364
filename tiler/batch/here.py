"""Tasks performed in this process, one after the other."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tiler.backends.onnx import load_model
from tiler.batch.task import perform

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from tiler.batch.task import Outcome, Task, TaskObserver
    from tiler.model import Model


class Here:
    """An executor without processes: a crash of native code ends it."""

    def run(self, tasks: Iterable[Task], observer: TaskObserver) -> Generator[tuple[Task, Outcome]]:
        """Perform each task; the network of the first is that of all."""
        model: Model | None = None
        for task in tasks:
            model = model or load_model(task.model, task.options)
            yield task, perform(task, model, partial(observer, task))
