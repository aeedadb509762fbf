"""asd-export as its user runs it: a run and recordings in, a bundle out that the daemon loads and scores with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from asd_daemon.errors import BundleError
from asd_daemon.judge.bundle.bundle import Bundle, load_bundle
from asd_daemon.judge.distances.nearest_neighbours import ExactIndex
from asd_daemon.judge.scoring.scorer import Scorer, open_embedder
from asd_daemon.judge.scoring.self_test import self_test
from asd_daemon.waveform import read_waveform
from asd_export import indexes, models
from asd_export.model_card import Learning
from asd_trainer.data.dataset import load_clip, read_dataset
from asd_trainer.evaluate import views
from asd_trainer.separate.training import save_separator
from rig.bundles import failing_noise, healthy_noise
from rig.exports import RememberedExport, export
from rig.networks import small_separator
from rig.recordings import write_recordings, write_trained_run

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Trace a network once, and change few copies of clips: what both give is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(models, "export_embedder", RememberedExport())
        patched.setattr(views, "MOST_CHANGED", 8)
        patched.setattr(indexes, "WEIGHED_CLIPS", 4)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Bundle]:
    root = tmp_path_factory.mktemp("export")
    data = write_recordings(root / "data", {"fan": 0.0, "press-3": 1.0})
    run = write_trained_run(root / "run", data)
    result = export(run, root / "bundle", "--score-error", "5", "--json")
    assert result.exit_code == 0, result.output
    tried = json.loads(result.stdout)["figures"]["candidates"]
    assert [c["way"] for c in tried] == ["fp32", "dynamic", "static"]
    assert all(0 <= c["omega"] <= 100 for c in tried if c["refused"] is None)
    return run, root / "bundle", load_bundle(root / "bundle")


def test_export_bundle_holds_every_machine_with_its_normal_clips(made: tuple[Path, Path, Bundle]) -> None:
    run, _, bundle = made
    assert bundle.machines == ("fan", "press-3")
    assert bundle.manifest.embedder is not None
    assert bundle.manifest.embedder.precision == "int8"
    table = read_dataset([Path(json.loads((run / "data.json").read_text())["roots"][0])])
    clips = table.select(split="train", machine="fan")
    assert bundle.manifest.machines["fan"].vectors == len(clips) == 6
    embedded = open_embedder(bundle).embed_waveforms([load_clip(clip) for clip in clips])
    np.testing.assert_allclose(bundle.bank("fan"), embedded, atol=1e-6)


def test_bundle_carries_its_model_card(made: tuple[Path, Path, Bundle], tmp_path: Path) -> None:
    run, folder, bundle = made
    assert "MODEL_CARD.md" in bundle.manifest.files
    card = (folder / "MODEL_CARD.md").read_text()
    for fact in (bundle.name, bundle.manifest.licence, "fan 6, press-3 6", "| static |", "| fan | 6 |"):
        assert fact in card, fact
    assert str(run.parent) not in card, "where the recordings lie is nobody's business"
    silent = tmp_path / "run"
    shutil.copytree(run, silent)
    (silent / "recipe.yaml").unlink()
    assert Learning.of(silent) is None
    shutil.copy(run / "recipe.yaml", silent)
    (silent / "data.json").unlink()
    without = Learning.of(silent)
    assert without is not None
    assert without.data == {}


def test_export_bundle_scores_with_the_graph_as_with_exact_search(made: tuple[Path, Path, Bundle]) -> None:
    bundle = made[2]
    scorer = Scorer(bundle, "fan")
    window = failing_noise(np.random.default_rng(3))
    embedding = open_embedder(bundle).embed_waveforms([window])
    exact, _ = ExactIndex(bundle.bank("fan")).nearest(embedding)
    assert scorer.score(window).score == pytest.approx(float(exact[0, 0]), abs=1e-5)
    assert scorer.score(healthy_noise(np.random.default_rng(3))).score < scorer.score(window).score


def test_export_bundle_training_clip_is_its_own_neighbour(made: tuple[Path, Path, Bundle]) -> None:
    run, _, bundle = made
    table = read_dataset([Path(json.loads((run / "data.json").read_text())["roots"][0])])
    clip = table.select(split="train", machine="press-3")[0]
    assert Scorer(bundle, "press-3").score(load_clip(clip)).score == pytest.approx(0, abs=1e-5)


def test_self_test_every_reference_of_every_machine_is_compared(made: tuple[Path, Path, Bundle]) -> None:
    assert self_test(made[2]) == 4
    for reference in made[2].manifest.reference:
        assert read_waveform(made[2].path / reference.file).shape == (160_000,)


def test_self_test_other_score_is_refused(made: tuple[Path, Path, Bundle], tmp_path: Path) -> None:
    shutil.copytree(made[1], tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    manifest["reference"][0]["scores"]["fan"] += 0.1
    (tmp_path / "bundle/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="computes something else"):
        self_test(load_bundle(tmp_path / "bundle"))


def test_export_missed_budget_leaves_the_old_bundle(made: tuple[Path, Path, Bundle]) -> None:
    run, bundle, _ = made
    before = (bundle / "manifest.json").read_bytes()
    result = export(run, bundle, "--score-error", "1e-9")
    assert result.exit_code == 1
    assert "error: no int8 model holds its budget" in result.stderr
    assert (bundle / "manifest.json").read_bytes() == before
    assert not list(bundle.parent.glob(".bundle*"))


def test_export_recordings_the_run_never_heard_become_machines_in_fp32(
    made: tuple[Path, Path, Bundle], tmp_path: Path
) -> None:
    data = write_recordings(tmp_path / "data", {"lathe": 0.5, "saw": 2.0})
    result = export(made[0], tmp_path / "bundle", "--data", data, "--machine", "lathe", "--fp32")
    assert result.exit_code == 0, result.output
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.machines == ("lathe",)
    assert bundle.manifest.embedder is not None
    assert bundle.manifest.embedder.precision == "fp32"
    assert "asd-daemon run --bundle" in result.stdout


def test_export_folder_that_is_no_bundle_is_left_alone(made: tuple[Path, Path, Bundle], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = export(made[0], tmp_path, "--fp32")
    assert result.exit_code == 1
    assert "exists and is no bundle" in result.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{tmp}/no-run", "{tmp}/bundle"], 2, "there is no such run folder; make one with: asd-train run"),
        (["{tmp}", "{tmp}/bundle"], 2, "holds no trained embedder"),
        (["{run}", "{tmp}/bundle", "--machine", "pump"], 2, "--machine pump: the recordings know fan, press-3"),
        (["{run}", "{tmp}/bundle", "--data", "{tmp}/none"], 2, "none"),
    ],
)
def test_export_wrong_words_are_one_clear_line(
    made: tuple[Path, Path, Bundle], tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    result = export(*(w.format(tmp=tmp_path, run=made[0]) for w in words))
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_export_with_views_and_separator_is_signed_and_scored_by_them(
    made: tuple[Path, Path, Bundle], tmp_path: Path
) -> None:
    run = shutil.copytree(made[0], tmp_path / "run")
    stage = run / "stages" / "separate"
    stage.mkdir()
    save_separator(small_separator(), stage)
    (stage / "done").touch()
    data = write_recordings(tmp_path / "data", {"saw": 2.0}, train=16)
    key = Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pub").write_bytes(public)
    words = (run, tmp_path / "bundle", "--data", data, "--fp32", "--score", "views", "--sign", tmp_path / "key.pem")
    result = export(*words)
    assert result.exit_code == 0, result.output
    bundle = load_bundle(tmp_path / "bundle", tmp_path / "key.pub")
    assert bundle.manifest.separator is not None
    assert bundle.manifest.machines["saw"].views
    assert self_test(bundle) == 4, "by views and by the nearest neighbour"
    rng = np.random.default_rng(3)
    scorer = Scorer(bundle, "saw")
    assert scorer.score(healthy_noise(rng, 2.0)).score < scorer.threshold < scorer.score(failing_noise(rng, 2.0)).score
    without = export(run, tmp_path / "bundle", "--data", data, "--fp32", "--no-separator")
    assert without.exit_code == 0, without.output
    assert load_bundle(tmp_path / "bundle").manifest.separator is None


def test_export_too_few_clips_for_views_is_one_clear_line(made: tuple[Path, Path, Bundle], tmp_path: Path) -> None:
    result = export(made[0], tmp_path / "bundle", "--fp32", "--score", "views")
    assert result.exit_code == 1
    assert "6 clips are too few to learn views from" in result.stderr
    assert not (tmp_path / "bundle").exists()


def test_export_key_that_is_none_is_refused_before_the_work(made: tuple[Path, Path, Bundle], tmp_path: Path) -> None:
    result = export(made[0], tmp_path / "bundle", "--sign", tmp_path / "none.pem")
    assert result.exit_code == 3
    assert "none.pem: the key can't be read" in result.stderr
