"""How many bytes a piece of work really takes: each allocation and release of torch's allocator on the CPU, as its profiler sees it."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], object]) -> int:
    """Bytes at the fullest moment of the work, over what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=False) as watched:
        work()
    assert watched.profiler is not None
    results = watched.profiler.kineto_results
    assert results is not None
    moments = sorted(
        ((event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]"),
        key=lambda moment: moment[0],
    )
    live = fullest = 0
    for _, size in moments:
        live += size
        fullest = max(fullest, live)
    return fullest
