"""Shared settings and fixtures."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("nightly", max_examples=500, deadline=None)
settings.load_profile("default")

DATA = Path(__file__).parent / "data"
"""Small real files that are shipped with the tests."""
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Real rasters, models and labels, where the project is developed; not needed to use it."""


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data, which is not here")
    return SHARED


@pytest.fixture(autouse=True)
def small_process(monkeypatch) -> None:
    """Budgets count what a process holds, and the one that runs all tests comes to hold gigabytes."""
    monkeypatch.setattr("tiler.memory.resident", lambda: 120_000_000)


@pytest.fixture(autouse=True)
def no_thread_left() -> None:
    """Every test ends with the threads it began with."""
    before = set(threading.enumerate())
    yield
    left = [t for t in threading.enumerate() if t not in before and t.name.startswith("tiler")]
    assert not left, f"threads left: {left}"
