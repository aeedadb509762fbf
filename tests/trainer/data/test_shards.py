"""Shards: what goes in comes out, from a folder or an address; broken off, damaged, moved, fetched by several at once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import fsspec
import numpy as np
import pyarrow.parquet
import pytest
import soundfile
from click.testing import CliRunner

from asd_daemon.errors import DataSetError, RecordingError, SettingsError
from asd_daemon.judge.bundle.bundle import default_bundle
from asd_daemon.waveform import read_waveform
from asd_export.cli import main as export_main
from asd_trainer.cli.program import main
from asd_trainer.data import shard_sound, shard_writing
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable, load_clip, read_dataset
from asd_trainer.data.features import cached_log_mels, clips_digest
from asd_trainer.data.shard_sound import clip_content
from asd_trainer.data.shard_writing import encoded, write_shards
from asd_trainer.data.storage import DataRoot, Storage
from rig.tones import write_tones
from rig.waiting import PATIENT_S


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ASD_SHARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shard_sound, "_OPEN", type(shard_sound._OPEN)())
    yield tmp_path / "cache"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two machines of a year that only the folder says, with a clip too short, a table of attributes and a supplemental clip."""
    root = write_tones(tmp_path / "dcase2025t2" / "dev_data", train=2, test=1)
    noise = root / "hummer" / "supplemental" / "section_00_noise_0001.wav"
    noise.parent.mkdir()
    rng = np.random.default_rng(0)
    soundfile.write(noise, rng.normal(0, 0.1, 96_000), 16_000, subtype="PCM_24")
    soundfile.write(
        noise.parent.parent / "train" / "section_00_source_train_normal_0009_noAttribute.wav", np.ones(800), 16_000
    )
    return root


def written(data: Path, to: DataRoot, clips_a_shard: int = 5) -> ClipTable:
    table = read_dataset([data])
    write_shards(table, [data], to, clips_a_shard=clips_a_shard, progress=lambda *_: None)
    return table


def said(clip: Clip) -> tuple[object, ...]:
    return (
        clip.machine,
        clip.section,
        clip.split,
        clip.domain,
        clip.label,
        clip.attributes,
        clip.supplement,
        clip.year,
        clip.path.name,
    )


@pytest.mark.parametrize("address", ["folder", "memory"])
def test_table_and_sound_are_those_of_the_folder(data: Path, tmp_path: Path, address: str) -> None:
    to: DataRoot = tmp_path / "shards" if address == "folder" else "memory://store/shards"
    before = written(data, to)
    after = read_dataset([to])
    assert [said(clip) for clip in after] == [said(clip) for clip in before]
    assert {clip.year for clip in after} == {2025}
    assert [problem.reason for problem in after.problems] == [problem.reason for problem in before.problems]
    assert "too short" in after.report()
    for one, other in zip(after, before, strict=True):
        assert clip_content(one) is not None
        np.testing.assert_array_equal(load_clip(one), load_clip(other))
        assert "dev_data" in one.path.parts


def test_shards_are_read_by_any_reader_of_parquet(data: Path, tmp_path: Path) -> None:
    before = written(data, tmp_path / "shards")
    rows = [
        row
        for path in sorted((tmp_path / "shards").glob("shard-*"))
        for row in pyarrow.parquet.read_table(path).to_pylist()
    ]
    assert [row["machine"] for row in rows] == [clip.machine for clip in before]
    assert all(row["sound"].startswith(b"fLaC") for row in rows)
    assert json.loads(rows[0]["attributes"]) == [list(pair) for pair in before.clips[0].attributes]
    index = json.loads((tmp_path / "shards" / "shards.json").read_text())
    assert sum(one["rows"] for one in index["shards"]) == index["clips"] == len(before)
    for one in index["shards"]:
        content = (tmp_path / "shards" / one["file"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (one["bytes"], one["sha256"])


def test_the_same_clips_give_the_same_bytes(data: Path, tmp_path: Path) -> None:
    written(data, tmp_path / "1")
    moved = data.parents[1] / "elsewhere" / "dcase2025t2"
    moved.parent.mkdir()
    data.parent.rename(moved)
    written(moved / "dev_data", tmp_path / "2")
    contents = [{path.name: path.read_bytes() for path in (tmp_path / one).iterdir()} for one in ("1", "2")]
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("subtype", "suffix", "flac"),
    [
        ("PCM_16", "wav", True),
        ("PCM_24", "wav", True),
        ("PCM_U8", "wav", True),
        ("FLOAT", "wav", False),
        ("VORBIS", "ogg", False),
    ],
)
def test_nothing_of_a_recording_is_lost(tmp_path: Path, subtype: str, suffix: str, flac: bool) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.random.default_rng(1).uniform(-0.9, 0.9, (90_000, 2)), 16_000, subtype=subtype)
    content = encoded(Clip(path, "a", "00", "train", None, "normal", (), None, None))
    assert content.startswith(b"fLaC") == flac
    for channel in (0, 1):
        np.testing.assert_array_equal(read_waveform(tmp_path / "gone", channel, content), read_waveform(path, channel))


def test_broken_off_it_goes_on_after_the_last_whole_shard(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(data, tmp_path / "whole")
    original, clips = shard_writing.encoded, iter(range(100))

    def breaking(clip: Clip) -> bytes:
        if next(clips) >= 7:
            raise KeyboardInterrupt
        return original(clip)

    monkeypatch.setattr(shard_writing, "encoded", breaking)
    with pytest.raises(KeyboardInterrupt):
        written(data, tmp_path / "shards")
    with pytest.raises(DataSetError, match="no sound file"):
        read_dataset([tmp_path / "shards"])
    monkeypatch.setattr(shard_writing, "encoded", original)
    table = read_dataset([data])
    done = write_shards(table, [data], tmp_path / "shards", clips_a_shard=5, progress=lambda *_: None)
    assert (done.written, done.kept) == (3, 1)
    left = {path.name for path in (tmp_path / "shards").iterdir()}
    assert left == {path.name for path in (tmp_path / "whole").iterdir()}
    for name in left:
        assert (tmp_path / "shards" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = write_shards(table, [data], tmp_path / "shards", clips_a_shard=5, progress=lambda *_: None)
    assert (again.written, again.kept) == (0, 4)
    with pytest.raises(DataSetError, match="of another size"):
        write_shards(table, [data], tmp_path / "shards", clips_a_shard=4, progress=lambda *_: None)


def test_what_a_killed_call_has_left_is_removed_by_the_next_one_and_what_is_in_use_or_no_shard_is_not(
    data: Path, tmp_path: Path
) -> None:
    to = tmp_path / "shards"
    script = f"""
import os, signal, sys
from pathlib import Path
from asd_trainer.data import shard_writing
from asd_trainer.data.dataset import read_dataset
what = sys.argv[1]

def stop(clip):
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os.write(1, b"at it\\n")
    sys.stdin.read()
    os._exit(0)

shard_writing.encoded = stop
data, to = Path({str(data)!r}), Path({str(to)!r})
shard_writing.write_shards(read_dataset([data]), [data], to, clips_a_shard=5, progress=lambda *_: None)
"""
    killed = subprocess.run([sys.executable, "-c", script, "kill"], check=False)
    assert killed.returncode == -9
    (left,) = to.glob(".shard-*")
    with subprocess.Popen(
        [sys.executable, "-c", script, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "at it\n"
        assert not left.exists()
        (used,) = to.glob(".shard-*")
        (to / ".shard-mine").mkdir()
        (to / ".shard-mine" / "notes.txt").write_text("not a shard")
        written(data, to)
        assert sorted(to.glob(".shard-*")) == sorted([used, to / ".shard-mine"])
    written(data, to)  # all is there: what is left goes all the same
    assert list(to.glob(".shard-*")) == [to / ".shard-mine"]


def test_a_clip_that_changed_meanwhile_is_written_anew(data: Path, tmp_path: Path) -> None:
    table = written(data, tmp_path / "shards")
    (tmp_path / "shards" / "shards.json").unlink()
    first = table.clips[0].path
    soundfile.write(first, np.zeros(96_000) + 0.25, 16_000)
    written(data, tmp_path / "shards")
    np.testing.assert_array_equal(load_clip(read_dataset([tmp_path / "shards"]).clips[0]), load_clip(table.clips[0]))


def test_digest_follows_from_what_shards_hold_not_from_where_they_lie(data: Path, tmp_path: Path) -> None:
    written(data, tmp_path / "a")
    digest = clips_digest(read_dataset([tmp_path / "a"]).clips)
    (tmp_path / "a").rename(tmp_path / "b")
    assert clips_digest(read_dataset([tmp_path / "b"]).clips) == digest
    written(data, "memory://elsewhere")
    assert clips_digest(read_dataset(["memory://elsewhere"]).clips) == digest
    (data / "hummer" / "supplemental" / "section_00_noise_0001.wav").unlink()
    written(data, tmp_path / "c")
    assert clips_digest(read_dataset([tmp_path / "c"]).clips) != digest


def test_damage_is_found_and_named(data: Path, tmp_path: Path) -> None:
    written(data, tmp_path / "shards")
    shard = tmp_path / "shards" / "shard-00001.parquet"
    content = bytearray(shard.read_bytes())
    clip = next(c for c in read_dataset([tmp_path / "shards"]) if c.shard and c.shard.url == str(shard) and c.row == 1)
    at = content.find(clip_content(clip) or b"?")
    content[at + 5_000] ^= 1
    shard.write_bytes(content)
    shard_sound._OPEN.clear()
    with pytest.raises(RecordingError, match=r"shard-00001\.parquet.*row 1: .*(checksum|crc)"):
        load_clip(clip)
    shard.write_bytes(content[:-1])
    shard_sound._OPEN.clear()
    with pytest.raises(RecordingError, match="the index says"):
        load_clip(clip)
    shard.unlink()
    shard_sound._OPEN.clear()
    with pytest.raises(RecordingError, match=r"shard-00001\.parquet"):
        load_clip(clip)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda index: index | {"schema": 2}, r"schema: .2. is not allowed"),
        (lambda index: index | {"clips": 3}, "clips: 3"),
        (lambda index: index | {"shards": [index["shards"][0] | {"file": "../x.parquet"}]}, r"shards\.0\.file"),
        (lambda index: index | {"table_sha256": "0" * 64}, "clips.parquet: is not what shards.json says"),
    ],
)
def test_odd_index_is_refused_by_key(data: Path, tmp_path: Path, change: object, complaint: str) -> None:
    written(data, tmp_path / "shards")
    path = tmp_path / "shards" / "shards.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))  # type: ignore[operator]
    with pytest.raises(DataSetError, match=complaint):
        read_dataset([tmp_path / "shards"])


def test_address_without_shards_or_of_a_missing_package_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match=r"there is no shards\.json"):
        read_dataset(["memory://nothing"])
    with pytest.raises(DataSetError, match="pip install s3fs"):
        read_dataset(["s3://bucket/shards"])
    with pytest.raises(DataSetError, match="nosuch"):
        read_dataset(["nosuch://bucket/shards"])


def test_cache_is_bounded_checked_and_left_alone_where_it_is_right(
    data: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(data, "memory://far")
    table = read_dataset(["memory://far"])
    sounds = [load_clip(clip) for clip in table]
    assert len(list(own_cache.glob("*.parquet"))) == 4
    store = fsspec.filesystem("memory")
    for path in store.ls("/far", detail=False):
        if "shard-" in path:
            store.rm(path)
    shard_sound._OPEN.clear()
    np.testing.assert_array_equal(load_clip(table.clips[0]), sounds[0])  # from the cache
    written(data, "memory://again")
    shards = {clip.shard for clip in table if clip.shard}
    monkeypatch.setenv("ASD_SHARD_CACHE_GB", str(1.5e-9 * max(shard.size_bytes for shard in shards)))
    for path in own_cache.glob("*.parquet"):
        path.unlink()
    shard_sound._OPEN.clear()
    for clip, sound in zip(read_dataset(["memory://again"]), sounds, strict=True):
        np.testing.assert_array_equal(load_clip(clip), sound)
    assert 1 <= len(list(own_cache.glob("*.parquet"))) < 4
    assert not list(own_cache.glob("*.partial"))
    for path in own_cache.glob("*.parquet"):
        path.unlink()
    shard_sound._OPEN.clear()
    store.pipe_file("/again/shard-00000.parquet", b"something else")
    with pytest.raises(RecordingError, match="SHA-256 is"):
        load_clip(read_dataset(["memory://again"]).clips[0])
    monkeypatch.setenv("ASD_SHARD_CACHE_GB", "none")
    with pytest.raises(SettingsError, match="ASD_SHARD_CACHE_GB: 'none'"):
        load_clip(read_dataset(["memory://again"]).clips[6])


def test_nobody_waits_for_a_shard_that_others_fetch(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(data, "memory://far")
    clips = read_dataset(["memory://far"]).clips
    begun, go_on, original = Event(), Event(), Storage.get

    def slow(self: Storage, name: str, to: Path) -> None:
        if name == "shard-00000.parquet":
            begun.set()
            assert go_on.wait(PATIENT_S)
        original(self, name, to)

    monkeypatch.setattr(Storage, "get", slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(load_clip, clips[0])
        assert begun.wait(PATIENT_S)
        assert load_clip(clips[-1]).any()
        assert not first.done()
        go_on.set()
        assert first.result().any()


_READER = """
import sys
from pathlib import Path
from asd_trainer.data import storage
from asd_trainer.data.dataset import load_clip, read_dataset
from asd_trainer.data.shard_sound import clip_content
fetched, original = [], storage.Storage.get
storage.Storage.get = lambda self, name, to: fetched.append(name) or original(self, name, to)
sys.stdin.readline()
for clip in read_dataset([sys.argv[1]]):
    load_clip(clip)
print(len(fetched))
"""


def test_processes_of_a_machine_fetch_each_shard_once(data: Path, tmp_path: Path) -> None:
    written(data, tmp_path / "shards")
    address = f"local://{tmp_path}/shards"  # fsspec's own disk: an address like any other
    offered = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _READER, address]
    readers = [
        subprocess.Popen(command, env=offered, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.write("\n")
        reader.stdin.flush()
    told = [int(reader.communicate(timeout=PATIENT_S)[0]) for reader in readers]
    assert sum(told) == 4


def test_features_of_shards_are_those_of_files(data: Path, tmp_path: Path) -> None:
    before = written(data, tmp_path / "shards")
    after = read_dataset([tmp_path / "shards"])
    files = cached_log_mels(before.clips, tmp_path / "1")
    np.testing.assert_array_equal(cached_log_mels(after.clips, tmp_path / "2"), files)


def test_command_writes_and_others_take_the_address(data: Path, tmp_path: Path) -> None:
    made = CliRunner().invoke(main, ["shard", str(data), "--to", str(tmp_path / "shards"), "--clips-a-shard", "6"])
    assert made.exit_code == 0, made.output
    assert "3 written, 0 kept" in made.output
    out = tmp_path / "runs" / "never"
    plan = ["run", "smoke", "--data", f"file://{tmp_path}/shards", "--out", str(out), "--dry-run", "--json"]
    planned = CliRunner().invoke(main, plan)
    assert planned.exit_code == 0, planned.output
    assert not out.exists()
    missing = CliRunner().invoke(main, ["run", "smoke", "--data", "s3://bucket/x", "--out", str(out), "--dry-run"])
    assert missing.exit_code == 2
    assert "pip install s3fs" in missing.output


def test_bundle_scores_and_embeds_shards_as_it_does_files(data: Path, tmp_path: Path) -> None:
    table = written(data, "memory://far")
    vectors = []
    for number, root in enumerate((str(data), "memory://far")):
        call = [
            "embed",
            str(default_bundle()),
            "--data",
            root,
            "--view",
            "steady-quiet",
            "--to",
            str(tmp_path / f"{number}.npz"),
        ]
        done = CliRunner().invoke(main, call)
        assert done.exit_code == 0, done.output
        with np.load(tmp_path / f"{number}.npz") as kept:
            vectors.append(dict(kept))
    assert vectors[0]["vector_steady-quiet"].shape[0] == len(table)
    for column in ("vector_steady-quiet", "machine", "label", "attributes", "year"):
        np.testing.assert_array_equal(vectors[1][column], vectors[0][column])


def test_machines_are_exported_and_scored_by_shards_as_by_files(tmp_path: Path) -> None:
    data = write_tones(tmp_path / "data", train=8, test=1)
    shutil.rmtree(data / "singer")
    written(data, "memory://far", 20)
    places = {"files": str(data), "shards": "memory://far"}
    told = []
    for name, root in places.items():
        call = ["-", str(tmp_path / name), "--data", root, "--score", "views", "--no-test"]
        made = CliRunner().invoke(export_main, call)
        assert made.exit_code == 0, made.output
        scored = CliRunner().invoke(main, ["evaluate", str(tmp_path / name), "--data", root, "--json"])
        told.append((scored.exit_code, scored.output.replace(name, "").replace(root, "")))
    assert told[0] == told[1]
    assert told[0][0] == 0, told[0][1]
    banks = [sorted(path.read_bytes() for path in (tmp_path / name).rglob("*.npz")) for name in places]
    assert banks[0]
    assert banks[0] == banks[1]
