"""ONNX Runtime: its errors and its settings."""

from __future__ import annotations

import functools
import os
from typing import Final

import onnxruntime as ort

from tiler.errors import UsageError

RUNTIME_ERRORS: Final = tuple(
    error
    for error in vars(ort.capi.onnxruntime_pybind11_state).values()
    if isinstance(error, type) and issubclass(error, Exception)
)
"""What ONNX Runtime raises; its exceptions share no base of their own."""
THREADS_PER_CORE: Final = 8
QUIET: Final = 4
"""Log level that shows nothing: what matters arrives as an exception."""


def shrinking(device: str) -> ort.RunOptions:
    """Options of a run at whose end the allocator gives memory back; it does so at no other time."""
    settings = ort.RunOptions()
    settings.log_severity_level = QUIET
    settings.add_run_config_entry("memory.enable_memory_arena_shrinkage", device)
    return settings


def session_options(threads: int | None) -> ort.SessionOptions:
    """Explicit settings of a session.

    Raises
    ------
    UsageError
        if there are far more threads than cores.
    """
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = thread_count(threads)
    settings.inter_op_num_threads = 1
    # Threads that wait do not spin: readers and finishers need the cores.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # The pattern allocates one block for everything: as fast without it, in about half the memory.
    settings.enable_mem_pattern = False
    _register_arena()
    settings.add_session_config_entry("session.use_env_allocators", "1")
    settings.log_severity_level = QUIET
    return settings


@functools.cache
def _register_arena() -> None:
    """One allocator for all sessions, which grows by what is asked for and not by doubling."""
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    as_requested = ort.OrtArenaCfg(
        {
            "arena_extend_strategy": 1,
            "max_mem": 0,
            "initial_chunk_size_bytes": -1,
            "max_dead_bytes_per_chunk": -1,
        }
    )
    ort.create_and_register_allocator(place, as_requested)


def thread_count(told: int | None) -> int:
    """Threads of the network.

    Raises
    ------
    UsageError
        if there are far more than cores.
    """
    if told is not None and told > THREADS_PER_CORE * cores():
        raise UsageError(f"--threads is at most {THREADS_PER_CORE} per core ({cores()} here), got {told}")
    return told or cores()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
