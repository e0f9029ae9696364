"""What training does to the process's memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import numpy as np
from train.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    for size in (2**21, 2**24):
        np.full(size, 1.0)

kept = sys.argv[1] == "keep" and keep_freed_memory()
step()
before = faults()
for _ in range(4):
    step()
print(kept, faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_a_step_is_given_the_memory_of_the_last_one():
    found = {}
    for how in ("keep", "plain"):
        done = subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True)
        found[how] = done.stdout.split()
    if found["keep"][0] == "False":
        pytest.skip("no glibc")
    assert int(found["keep"][1]) < 50 < int(found["plain"][1])
