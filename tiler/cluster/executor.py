"""The rasters of a batch as tasks on Dask: each is segmented by one worker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tiler.batch.task import failure
from tiler.cluster.client import connected
from tiler.cluster.worker import perform_task
from tiler.errors import ClusterError, TilerError
from tiler.readers.address import is_remote

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from tiler.batch.task import Outcome, Task, TaskObserver
    from tiler.ports import Observer


@dataclass(frozen=True, slots=True)
class DaskExecutor:
    """An executor whose tasks are performed where ``--scheduler`` says."""

    scheduler: str
    gpu: bool
    """Whether each task takes one unit of the workers' resource GPU."""
    notes: Observer
    """Hears of the cluster; of what happens inside a task nobody hears before its outcome."""

    def run(self, tasks: Iterable[Task], observer: TaskObserver) -> Generator[tuple[Task, Outcome]]:
        """Perform each task in some worker; one whose workers die again and again has failed."""
        del observer
        with connected(self.scheduler, self.notes, self.gpu) as cluster:
            function = partial(perform_task, cluster.name)
            for task, answer in cluster.results(function, tasks, sent=everywhere):
                if isinstance(answer, ClusterError):
                    yield task, failure(str(answer), answer)
                elif isinstance(answer, TilerError):
                    raise answer
                else:
                    yield task, answer
            cluster.forget()


def everywhere(task: Task) -> Task:
    """A task that means the same on every machine."""
    options = task.options
    mask = None if options.mask is None else str(Path(options.mask).absolute())
    return replace(
        task,
        source=task.source if is_remote(task.source) else str(Path(task.source).absolute()),
        model=str(Path(task.model).absolute()),
        output=str(Path(task.output).absolute()),
        thumbnail=str(Path(task.thumbnail).absolute()) if task.thumbnail else "",
        options=replace(options, scheduler=None, mask=mask),
    )
