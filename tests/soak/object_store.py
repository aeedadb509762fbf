"""Shards in object stores: written, trained from and evaluated over S3's and Google Cloud Storage's own protocols.

    PYTHONPATH=tests python -m soak.object_store

The stores are emulated on this computer: S3 by moto (`pip install s3fs 'moto[server]'`), Google's by gcp-storage-emulator
(`pip install gcsfs gcp-storage-emulator`). What is missing is skipped, with a word. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from rig.broker import HOST, answers, free_port
from rig.tones import write_tones
from rig.waiting import PATIENT_S, wait_until

BUCKET = "sounds"
SHORT = (
    "pretrain.steps=2",
    "pretrain.batch_clips=4",
    "pretrain.crop_frames=64",
    "finetune.epochs=1",
    "finetune.batch_clips=4",
)
BROKEN = {"s3": {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "gs": {}}
"""What makes a store refuse us."""


@contextmanager
def s3() -> Iterator[Mapping[str, str]]:
    """Moto's S3 with a bucket; what finds it there."""
    port = free_port()
    found = {
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with served([sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)], port):
        words = "import s3fs, sys; s3fs.S3FileSystem().mkdir(sys.argv[1])"
        subprocess.run([sys.executable, "-c", words, BUCKET], check=True, env={**os.environ, **found})
        yield found


@contextmanager
def gs() -> Iterator[Mapping[str, str]]:
    """The emulator of Google Cloud Storage with a bucket; what finds it there."""
    port = free_port()
    program = str(Path(sys.executable).with_name("gcp-storage-emulator"))
    words = [program, "start", "--host", HOST, "--port", str(port), "--in-memory", f"--default-bucket={BUCKET}"]
    with served(words, port):
        yield {"STORAGE_EMULATOR_HOST": f"http://{HOST}:{port}"}


@contextmanager
def served(command: list[str], port: int) -> Iterator[None]:
    """A server, while it is wanted."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: answers(port), f"{command[0]} answers")
            yield
        finally:
            server.terminate()


def ask(environment: Mapping[str, str], *words: object) -> tuple[int, str]:
    """What asd-train says."""
    command = [sys.executable, "-m", "asd_trainer", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=4 * PATIENT_S
    )
    return done.returncode, done.stdout + done.stderr


def tried(scheme: str, environment: Mapping[str, str], folder: Path) -> dict[str, bool]:
    """What was as it should be."""
    data, address = write_tones(folder / "data", train=6, test=4), f"{scheme}://{BUCKET}/fans"
    keys = [word for key in SHORT for word in ("--set", key)]
    shard = ("shard", data, "--to", address, "--clips-a-shard", 5)
    written, again = ask(environment, *shard), ask(environment, *shard)
    trained = {
        where: ask(environment, "run", "smoke", "--data", where, "--out", folder / name, "--threads", 1, *keys)
        for name, where in (("far", address), ("near", str(data)))
    }
    omegas = {
        name: ask(environment, "evaluate", folder / name, "--data", where, "--json")[1]
        for name, where in (("far", address), ("near", str(data)))
    }
    other = ask(environment, "run", "smoke", "--data", f"{scheme}://{BUCKET}/nothing", "--out", folder / "other")
    found = {
        "written": written[0] == 0,
        "kept": again[0] == 0 and " 0 written" in again[1],
        "trained": all(done[0] == 0 for done in trained.values()),
        "as from the disk": omega(omegas["far"]) == omega(omegas["near"]),
        "a folder without shards is named": other[0] == 2 and f"{scheme}://{BUCKET}/nothing" in other[1],
    }
    if BROKEN[scheme]:
        refused = ask({**environment, **BROKEN[scheme]}, "run", "smoke", "--data", address, "--out", folder / "refused")
        found["a store that refuses is named"] = refused[0] == 2 and f"{address}/shards.json" in refused[1]
    for name, good in found.items():
        if not good:
            sys.stderr.write(f"{scheme}: {name}: {written} {again} {trained} {omegas} {other}\n")
    return found


def omega(said: str) -> float:
    """Ω of what `evaluate --json` says."""
    content, _ = json.JSONDecoder().raw_decode(said)
    return float(content["omega"])


def main() -> int:
    """Every store that can be emulated here; 1 where something was not as it should be."""
    told: dict[str, object] = {}
    for scheme, packages, store in (("s3", ("s3fs", "moto"), s3), ("gs", ("gcsfs", "gcp_storage_emulator"), gs)):
        missing = [package for package in packages if find_spec(package) is None]
        if missing:
            told[scheme] = f"skipped: {', '.join(missing)} not installed"
            continue
        with store() as environment, tempfile.TemporaryDirectory() as scratch:
            told[scheme] = tried(scheme, environment, Path(scratch))
    sys.stdout.write(json.dumps(told) + "\n")
    return 0 if all(all(found.values()) for found in told.values() if isinstance(found, dict)) else 1


if __name__ == "__main__":
    sys.exit(main())
