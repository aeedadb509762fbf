"""Log-mels by a ray cluster of two nodes: the same bits as here, a worker that dies, clips of which all die.

    PYTHONPATH=tests python -m soak.ray_cluster

Needs `pip install 'asd-edge[ray]'`, which is large; says so and ends well where it is missing. Prints one JSON object.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from asd_daemon.errors import RecordingError, StageError
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import read_dataset
from asd_trainer.data.features import clip_log_mels
from asd_trainer.data.worker_choice import chosen_workers
from asd_trainer.data.workers import at_work
from rig.odd_work import deadly, dying_once
from rig.tones import write_tones


def main() -> None:
    """Try it; end with 1 where something was not as it should be."""
    if find_spec("ray") is None:
        print(json.dumps({"skipped": "ray is not installed: pip install 'asd-edge[ray]'"}))  # noqa: T201
        return
    from ray.cluster_utils import Cluster

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = {"num_cpus": 1, "ray_client_server_port": port, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=1)
        with tempfile.TemporaryDirectory() as scratch:
            told = tried(f"ray://127.0.0.1:{port}", Path(scratch))
    finally:
        cluster.shutdown()
    print(json.dumps(told))  # noqa: T201
    sys.exit(0 if all(value for key, value in told.items() if key != "seconds") else 1)


def tried(words: str, folder: Path) -> dict[str, object]:
    """What was as it should be."""
    clips = read_dataset([write_tones(folder / "data", train=4, test=2)]).clips
    here = list(clip_log_mels(clips))
    begun = time.perf_counter()
    made_up = [Clip(folder, "fan", "00", "train", None, "normal", (), None, None, row=row) for row in range(30)]
    with at_work(chosen_workers(words)) as chosen:
        there = list(clip_log_mels(clips))
        same = all(np.array_equal(one, other) for one, other in zip(there, here, strict=True))
        rows = np.array(list(chosen.each(dying_once, made_up, 1)))
        outlived = bool(np.array_equal(rows[:, 0], np.arange(30) + 1)) and (folder / "died").is_dir()
        try:
            list(chosen.each(deadly, made_up, 0))
            ended = False
        except StageError:
            ended = True
        clips[3].path.write_bytes(b"RIFFnothing")
        try:
            list(clip_log_mels(clips))
            named = False
        except RecordingError as e:
            named = clips[3].path.name in str(e)
    seconds = round(time.perf_counter() - begun, 1)
    return {
        "same_bits": same,
        "outlives_a_worker": outlived,
        "ends_when_all_die": ended,
        "names_a_clip": named,
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
