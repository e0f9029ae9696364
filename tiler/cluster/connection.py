"""To workers of our own, or to a scheduler at an address; whatever cannot be reached is said in one line."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from tiler.cluster.client import Cluster
from tiler.cluster.scheduler import Scheduler
from tiler.errors import MissingError, UsageError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiler.ports import Observer

PATIENCE: Final = "10s"
"""For a scheduler to answer."""


@contextmanager
def connected(text: str, observer: Observer, gpu: bool = False) -> Iterator[Cluster]:
    """The cluster that ``--scheduler`` names; workers of our own are stopped at the end.

    Raises
    ------
    UsageError
        if workers of our own are to share the cards of this machine.
    MissingError
        if Dask is not installed, or no scheduler answers.
    """
    scheduler = Scheduler.parse(text)
    if gpu and scheduler.workers:
        raise UsageError(
            f"several cards of one machine need no scheduler, got {text} on a GPU; pass --device cuda:0,1 "
            "without it, or --device cpu"
        )
    try:
        import distributed
    except ImportError:
        raise MissingError('--scheduler needs Dask: pip install "gigatiler[dask]"') from None
    with ExitStack() as stack:
        stack.enter_context(_silence())
        place = scheduler.address or stack.enter_context(own_workers(scheduler.workers))
        _check_keys(distributed, scheduler)
        yield Cluster(scheduler, observer, gpu, stack.enter_context(_client(distributed, scheduler, place)))


def _check_keys(distributed: Any, scheduler: Scheduler) -> None:  # noqa: ANN401 - Dask has no types
    """Dask would end in a traceback where there are none."""
    given = distributed.Security().get_connection_args("client")
    if scheduler.address.startswith("tls://") and given["ssl_context"] is None:
        raise MissingError(
            f"{scheduler.address} needs a certificate and a key; set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, "
            "..__CLIENT__CERT and ..__CLIENT__KEY"
        )


@contextmanager
def _client(distributed: Any, scheduler: Scheduler, place: Any) -> Iterator[Any]:  # noqa: ANN401
    try:
        client = distributed.Client(place, timeout=PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        where = scheduler.address or "this machine"
        raise MissingError(
            f"no Dask scheduler answers at {where} ({one_line(error)}); start one with: dask scheduler"
        ) from None
    try:
        yield client
    finally:
        with suppress(OSError, TimeoutError, RuntimeError):
            client.close(timeout=2)


@contextmanager
def own_workers(number: int) -> Iterator[Any]:
    """Workers on this machine, one process and one thread each, that nobody else can reach.

    They die with this process, however it ends.

    Raises
    ------
    MissingError
        if they cannot be started.
    """
    from distributed import LocalCluster

    try:
        cluster = LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=number,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
            memory_limit=0,
            preload=["tiler.cluster.worker"],
        )
    except (OSError, RuntimeError) as error:
        raise MissingError(
            f"cannot start {number} workers here ({one_line(error)}); start fewer, and in a script do so "
            'below if __name__ == "__main__":'
        ) from None
    try:
        yield cluster
    finally:
        cluster.close(timeout=5)


@contextmanager
def _silence() -> Iterator[None]:
    """What matters arrives as an error, in one line."""
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
