"""ONNX Runtime on NVIDIA cards: batches go to one card or to several, by IO binding.

Input and output lie in the card's own memory while the network runs: the input in a buffer that is filled
anew for every batch, the output wherever the run puts it. Two batches are under way on each card, so that one
is copied while another is computed. Host memory is not page-locked: ONNX Runtime's Python interface offers
that for plug-in providers only.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort

from tiler.backends.runtime import RUNTIME_ERRORS, shrinking
from tiler.backends.session import failure
from tiler.errors import MissingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tiler.device import Device

PROVIDER: Final = "CUDAExecutionProvider"
FAILURES: Final[tuple[type[Exception], ...]] = (RuntimeError, *RUNTIME_ERRORS)
"""What a run raises; tensors outside a run fail in Python's own words."""
LANES_PER_CARD: Final = 2
CUDA_OPTIONS: Final = {
    # The search for the fastest algorithm may choose differently from run to run, and with it the bytes.
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
    # TF32 keeps 10 bits of mantissa: too few for logits that equal the whole image's.
    "use_tf32": "0",
}


@dataclass(slots=True, eq=False)
class Lane:
    """One batch at a time on one card; lanes of a card share its session."""

    session: ort.InferenceSession
    kind: str
    """ONNX Runtime's name for the kind of device: cuda."""
    number: int
    given: ort.OrtValue | None = None
    """The input on the card, kept for batches of the same shape."""

    def run(self, batch_NCHW: NDArray[Any], settings: ort.RunOptions | None = None) -> NDArray[Any]:
        """Copy a batch to the card, run the network there, and copy its scores back."""
        try:
            binding = self.session.io_binding()
            binding.bind_ortvalue_input(self.session.get_inputs()[0].name, self._fed(batch_NCHW))
            binding.bind_output(self.session.get_outputs()[0].name, self.kind, self.number)
            self.session.run_with_iobinding(binding, settings)
            return binding.get_outputs()[0].numpy()  # type: ignore[no-any-return]
        except FAILURES as error:
            self.given = None
            raise failure(error, batch_NCHW) from None

    def release(self, tile_NCHW: NDArray[Any]) -> None:
        """Give the card's memory back."""
        self.given = None
        self.run(tile_NCHW, shrinking(f"{'gpu' if self.kind == 'cuda' else self.kind}:{self.number}"))
        self.given = None

    def _fed(self, batch_NCHW: NDArray[Any]) -> ort.OrtValue:
        if self.given is None or tuple(self.given.shape()) != batch_NCHW.shape:
            self.given = ort.OrtValue.ortvalue_from_shape_and_type(
                batch_NCHW.shape, batch_NCHW.dtype.type, self.kind, self.number
            )
        self.given.update_inplace(np.ascontiguousarray(batch_NCHW))
        return self.given


@dataclass(frozen=True, slots=True, eq=False)
class CudaSession:
    """Batches go to the lane that has been free for the longest; all compute the same bytes."""

    lanes: Sequence[Lane]
    free: SimpleQueue[Lane] = field(init=False, default_factory=SimpleQueue)

    def __post_init__(self) -> None:
        for lane in self.lanes:
            self.free.put(lane)

    @property
    def workers(self) -> int:
        """One thread per lane."""
        return len(self.lanes)

    @property
    def most_workers(self) -> int:
        """The same."""
        return len(self.lanes)

    def run(self, batch_NCHW: NDArray[Any]) -> NDArray[Any]:
        """Run the network on the next free lane."""
        lane = self.free.get()
        try:
            return lane.run(batch_NCHW)
        finally:
            self.free.put(lane)

    def reserve(self, size: int, workers: int) -> None:
        """Nothing to do: ``size`` is of the host's memory."""

    def release(self, tile_NCHW: NDArray[Any]) -> None:
        """Give the cards' memory back."""
        for lane in self.lanes:
            lane.release(tile_NCHW)


def cuda_session(content: bytes, settings: ort.SessionOptions, device: Device) -> tuple[CudaSession, str]:
    """A session on every card that was asked for, and what it runs on in words.

    Raises
    ------
    MissingError
        if a card is not there, or CUDA's libraries are not all there.
    UsageError
        if the cards are of several models.
    """
    numbers = device.cards or (0,)
    check_cards(numbers, card_names())
    ort.preload_dlls()
    # Its warnings about plug-ins that are not used are of no use.
    ort.set_default_logger_severity(3)
    sessions = {number: _on_card(content, settings, number) for number in numbers}
    # Card by card, so that the first batches go to different ones.
    lanes = [Lane(sessions[n], "cuda", n) for _ in range(LANES_PER_CARD) for n in numbers]
    # The fingerprint goes by what stands before the comma: cards of one model make the same bytes.
    which = f", cards {', '.join(map(str, numbers))}" if len(numbers) > 1 else ""
    return CudaSession(lanes), f"CUDA (ONNX Runtime {ort.__version__}){which}"


def check_cards(numbers: tuple[int, ...], names: tuple[str, ...]) -> None:
    """Refuse cards that are not among those here, by their models, or are of several models.

    Raises
    ------
    MissingError
        if one is not there.
    UsageError
        if they are of several models.
    """
    told = ",".join(map(str, numbers))
    if PROVIDER not in ort.get_available_providers() or not names:
        raise MissingError(
            f"--device cuda:{told} needs an NVIDIA driver and onnxruntime-gpu, got {len(names)} cards and "
            f"ONNX Runtime {ort.__version__}; see `tiler doctor`, or use --device cpu"
        )
    if max(numbers) >= len(names):
        here = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
        raise MissingError(f"--device cuda:{told} needs cards that are here, these are {here}")
    models = sorted({names[number] for number in numbers})
    if len(models) > 1:
        raise UsageError(
            f"cards of one run are of one model, or its bytes depend on who computes what; got "
            f"{' and '.join(models)} for --device cuda:{told}"
        )


def _on_card(content: bytes, settings: ort.SessionOptions, number: int) -> ort.InferenceSession:
    providers = [(PROVIDER, {"device_id": str(number), **CUDA_OPTIONS}), "CPUExecutionProvider"]
    # Its fallback would go on with the CPU in the midst of a run, and print to stdout.
    session = ort.InferenceSession(content, settings, providers=providers, enable_fallback=0)
    # And where CUDA's libraries are not all there, it begins with the CPU, silently.
    if session.get_providers()[0] != PROVIDER:
        raise MissingError(
            f"--device cuda needs CUDA libraries that ONNX Runtime {ort.__version__} can load; see "
            "`tiler doctor`, install gigatiler[cuda], or use --device cpu"
        )
    return session


def card_names() -> tuple[str, ...]:
    """The models of the NVIDIA cards that the driver shows to this process, in its order."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(_card_name(driver, number) for number in range(count.value))


def _card_name(driver: Any, number: int) -> str:  # noqa: ANN401 - a C library
    name = ctypes.create_string_buffer(100)
    # A device of the driver is its number.
    failed = driver.cuDeviceGetName(name, len(name), number)
    return "unknown" if failed else name.value.decode(errors="replace")
