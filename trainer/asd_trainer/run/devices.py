"""What a device can do, and how long a step that was counted on paper takes on it.

Owns the table of devices, the share of their peaks that such networks reach, and a short measurement of the CPU at hand. It knows no stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch

from asd_daemon.errors import UsageError
from asd_daemon.run.free_memory import free_ram_bytes
from asd_trainer.run.step_trace import Operation
from asd_trainer.training.processes import processes

GB = 1e9


@dataclass(frozen=True)
class Device:
    """A device as its maker states it, or as it was measured."""

    name: str
    words: str
    """What it is, for people."""
    float32_per_s: float
    """Multiplications and additions of float32 matrix products."""
    bfloat16_per_s: float
    moved_per_s: float
    """Bytes between memory and the arithmetic."""
    memory_bytes: float
    """Of the whole device; of the one at hand what is free."""
    arithmetic_share: float
    """Part of its arithmetic that networks like these reach."""
    moving_share: float
    """Part of its memory's speed that they reach."""
    call_s: float
    """What a call of a kernel costs by itself."""
    measured: bool = False

    def seconds(self, kernels: Iterable[Operation]) -> float:
        """Time of these kernels, one after the other: each is bound by arithmetic or by memory (Williams et al., CACM 52(4), 2009)."""
        float32 = 1 / (self.float32_per_s * self.arithmetic_share)
        bfloat16 = 1 / (self.bfloat16_per_s * self.arithmetic_share)
        byte = 1 / (self.moved_per_s * self.moving_share)
        return sum(
            self.call_s
            + max(kernel.operations * (bfloat16 if kernel.low_precision else float32), kernel.moved_bytes * byte)
            for kernel in kernels
        )


def _card(name: str, words: str, float32: float, bfloat16: float, moved: float, memory: float) -> Device:
    return Device(name, words, float32 * 1e12, bfloat16 * 1e12, moved * 1e9, memory * GB, 0.4, 0.7, 6e-6)


CARDS = {
    card.name: card
    for card in (  # dense peaks of the makers' data sheets: TFLOPS of float32 without TF32, and of bfloat16; GB/s; GB
        _card("h200", "NVIDIA H200", 67, 989, 4800, 141),
        _card("h100", "NVIDIA H100 SXM", 67, 989, 3350, 80),
        _card("a100", "NVIDIA A100 80 GB", 19.5, 312, 2039, 80),
        _card("a100-40", "NVIDIA A100 40 GB", 19.5, 312, 1555, 40),
        _card("l40s", "NVIDIA L40S", 91.6, 362, 864, 48),
        _card("rtx4090", "NVIDIA GeForce RTX 4090", 82.6, 165, 1008, 24),
        _card("rtx3090", "NVIDIA GeForce RTX 3090", 35.6, 71, 936, 24),
        _card("a10", "NVIDIA A10", 31.2, 125, 600, 24),
    )
}
NAMES = ("here", "cpu", *CARDS)

_CPU_THREAD = Device("cpu", "", 80e9, 80e9, 20e9, 0.0, 0.6, 0.6, 8e-6)
_MORE_THREADS = 0.8  # of what the first one adds
_LEAST_CUDA = 0.06  # of a card is its driver's and the allocator's


def device_named(name: str) -> Device:
    """A device by its name in NAMES: a card, the CPU at hand, or `here`, what a run would use.

    Raises:
        UsageError: no such device.
    """
    if name == "here":
        return device_here()
    if name == "cpu":
        return _cpu()
    if name in CARDS:
        card = CARDS[name]
        return replace(card, memory_bytes=card.memory_bytes * (1 - _LEAST_CUDA))
    raise UsageError(f"--device {name}: no such device; known: {', '.join(NAMES)}")


def device_here() -> Device:
    """The device that stages run on, with the memory that is free on it now."""
    if processes().device.type != "cuda":
        return _cpu()
    there = torch.cuda.get_device_name()
    known = next((card for card in CARDS.values() if card.words.split()[1] in there.split()), CARDS["a10"])
    return replace(known, name="here", words=there, memory_bytes=free_bytes_here())


def free_bytes_here() -> float:
    """Memory that a stage may take on the device that stages run on."""
    if processes().device.type != "cuda":
        return free_ram_bytes()
    free, whole = torch.cuda.mem_get_info()
    own = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return free + own - _LEAST_CUDA * whole


def _cpu() -> Device:
    threads = torch.get_num_threads()
    factor = 1 + _MORE_THREADS * (threads - 1)
    one = _CPU_THREAD
    return replace(
        one,
        words=f"the CPU here, {threads} thread{'' if threads == 1 else 's'}",
        float32_per_s=one.float32_per_s * factor,
        bfloat16_per_s=one.bfloat16_per_s * factor,
        moved_per_s=one.moved_per_s * min(factor, 4),
        memory_bytes=free_ram_bytes(),
    )


def measured(device: Device) -> Device:
    """The device at hand with its speeds measured: a matrix product in each format and a sum of two long rows; takes a second, 100 MB."""
    place = processes().device
    side, length = (4096, 1 << 25) if place.type == "cuda" else (768, 1 << 23)
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(side, side, generator=generator).to(place)
    rounded = square.bfloat16()
    row, other, out = (torch.zeros(length, device=place) for _ in range(3))
    operations = 2.0 * side**3
    float32, bfloat16 = (operations / least_seconds(lambda one=one: one @ one) for one in (square, rounded))  # type: ignore[misc]
    if place.type != "cuda":
        bfloat16 = min(bfloat16, 2 * float32)  # what stands between the products gets no faster on a CPU
    return replace(
        device,
        float32_per_s=float32,
        bfloat16_per_s=bfloat16,
        moved_per_s=12.0 * length / least_seconds(lambda: torch.add(row, other, out=out)),
        measured=True,
    )


def least_seconds(work: Callable[[], object], calls: int = 5) -> float:
    """The least of a few calls after one that warms up: a busy machine makes single calls longer, never shorter."""
    work()
    found = []
    for _ in range(calls):
        _wait()
        begun = time.perf_counter()
        work()
        _wait()
        found.append(time.perf_counter() - begun)
    return min(found)


def _wait() -> None:
    if processes().device.type == "cuda":
        torch.cuda.synchronize()
