"""A step of training on paper: the very network goes forwards and backwards on tensors that have shapes and no numbers.

Owns the counting: operations, bytes read and written, and how many bytes of tensors live at a time. Nothing is computed and no memory is
taken, so that a network of any size is counted in seconds. It knows no stage and no device.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

BYTES_OF_A_NUMBER = 4  # weights, gradients and moments are float32
MOMENTS = 2  # of Adam


@dataclass(frozen=True)
class Operation:
    """One call of a kernel."""

    operations: float
    """Multiplications and additions of matrix products and convolutions."""
    moved_bytes: int
    """Read and written."""
    low_precision: bool
    """In bfloat16."""


@dataclass(frozen=True)
class StepTrace:
    """What a step needs."""

    kernels: tuple[Operation, ...]
    kept_bytes: int
    """Tensors that the backward pass asks for, each storage once and weights left out."""
    state_bytes: int
    """Weights, gradients and moments of the optimiser; a teacher is among the weights."""
    peak_bytes: int
    """All that lives at the fullest moment of a step."""
    parameters: int
    """Numbers that the optimiser moves."""

    @property
    def macs(self) -> float:
        """Multiply-accumulates of matrix products and convolutions, forwards and backwards."""
        return sum(kernel.operations for kernel in self.kernels) / 2


@contextmanager
def on_paper() -> Iterator[None]:
    """Make tensors without numbers: what is built and run inside takes no memory, and kernels are chosen as for tensors of the CPU.

    Autocast and fused attention need that. Where there is neither, what is built on torch's meta device is counted in a third of the time.
    """
    with FakeTensorMode(), torch.random.fork_rng(devices=[]):
        yield


def traced(model: nn.Module, loss: Callable[[], Tensor], *, low_precision: bool, parts: int = 1) -> StepTrace:
    """Count a training step; to be called `on_paper` with model and inputs made there, or with both on the meta device.

    Args:
        model: all that lies on the device.
        loss: the forward pass, of one part of the batch.
        low_precision: the forward pass runs in bfloat16 where torch's autocast allows it.
        parts: the batch goes through in so many parts, whose gradients are summed.
    """
    learning = [p for p in model.parameters() if p.requires_grad]
    constant = {id(t.untyped_storage()) for t in (*model.parameters(), *model.buffers())}
    weights = sum(t.untyped_storage().nbytes() for t in (*model.parameters(), *model.buffers()))
    learned = sum(p.numel() for p in learning) * BYTES_OF_A_NUMBER
    moments = MOMENTS * learned
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in constant:
            kept[id(storage)] = storage
        return tensor

    ledger = _Ledger([*model.parameters(), *model.buffers()])
    with ledger:
        for parameter in learning:  # each part but the first finds the gradients so far
            parameter.grad = torch.empty_like(parameter) if parts > 1 else None
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=low_precision),
        ):
            value = loss()
        kept_bytes = sum(storage.nbytes() for storage in kept.values())
        kept.clear()
        value.backward()  # type: ignore[no-untyped-call]
    state = weights + learned + moments
    update = state + learned  # a root of the second moments, of all at once where kernels work on lists
    kernels = (*(ledger.kernels * parts), Operation(0.0, 7 * learned, low_precision=False))
    return StepTrace(
        kernels,
        kept_bytes,
        state,
        max(weights + moments + ledger.peak_bytes, update),
        learned // BYTES_OF_A_NUMBER,
    )


def traced_forwards(work: Callable[[], object]) -> tuple[Operation, ...]:
    """Count a forward pass without gradients, as `traced` does."""
    ledger = _Ledger([])
    with torch.no_grad(), ledger:
        work()
    return tuple(ledger.kernels)


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every kernel, and how many bytes live; what was there before is not counted."""

    def __init__(self, before: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: list[Operation] = []
        self.peak_bytes = self.live_bytes = 0
        self._known: dict[int, Any] = {id(t.untyped_storage()): None for t in before}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for tensor in outputs:
            self._note(tensor.untyped_storage())
        if outputs and not (func.is_view or func._overloadpacket in _MOVES_NOTHING):
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            count = _FORMULAS.get(func._overloadpacket)
            self.kernels.append(
                Operation(
                    float(count(*args, **kwargs, out_val=out)) if count is not None else 0.0,
                    sum(map(_touched_bytes, (*inputs, *outputs))),
                    any(tensor.dtype is torch.bfloat16 for tensor in inputs),
                )
            )
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self._known:
            return
        size = storage.nbytes()
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        self._known[key] = weakref.ref(storage, lambda _: self._forget(key, size))

    def _forget(self, key: int, size: int) -> None:
        del self._known[key]
        self.live_bytes -= size


def _touched_bytes(tensor: Tensor) -> int:
    """Bytes that a kernel reads or writes of a tensor; of one that repeats itself, what there is of it."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]


def _attention_backward(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    del gradient
    # The attention's weights are computed again.
    return int(2.5 * sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]


_aten = torch.ops.aten
_FORMULAS: dict[Any, Callable[..., Any]] = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
_MOVES_NOTHING = frozenset({_aten.detach, _aten._unsafe_view, _aten.empty, _aten.empty_like, _aten.empty_strided})
