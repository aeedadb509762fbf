"""The report of made-up runs: what it says, that it stands alone, and that a browser shows it without complaint."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
import zlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asd_daemon.errors import StageError
from asd_trainer.data.clip import Clip
from asd_trainer.data.naming import Domain, Label, Split
from asd_trainer.evaluate.backend import ScoredClip
from asd_trainer.evaluate.evaluation import MachineResult, machine_results, omega
from asd_trainer.evaluate.published import ReferenceColumn
from asd_trainer.evaluate.threshold import decide_sections
from asd_trainer.report.figures import embedding_map, groups_by
from asd_trainer.report.maps import EmbeddedMachine, attribute_words, project
from asd_trainer.report.mistakes import worst_mistakes
from asd_trainer.report.page import ReportData, StageTime, flat_settings, render, roc_curves, write_report
from rig.waiting import PATIENT_S

F32 = NDArray[np.float32]

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
TRICKY = 'pump <b>&"$x_1$'  # markup, quotes and matplotlib's formulas, as a machine's name


def clip(
    machine: str, split: Split, number: int, domain: Domain | None, label: Label | None, attributes: bool = True
) -> Clip:
    name = f"section_00_{domain}_{split}_{label}_{number:04d}.wav"
    given = (("vel", str(number % 3)), ("loc", "A")) if attributes else ()
    return Clip(Path("raw") / machine / split / name, machine, "00", split, domain, label, given, None, 2025)


def loud_as_numbered(one: Clip) -> F32:
    """A tone among noise, at a level that differs from clip to clip."""
    rng = np.random.default_rng(zlib.crc32(str(one.path).encode()))
    tone = np.sin(2 * np.pi * 440 * np.arange(160_000) / 16_000)
    return np.asarray((0.02 + 0.1 * rng.random()) * (tone + 0.3 * rng.normal(size=160_000)), np.float32)


@dataclass
class MadeUp:
    """A run that never was: scores and embeddings drawn from distributions."""

    scored: list[ScoredClip]
    normal: list[ScoredClip]
    machines: list[EmbeddedMachine]


def made_up(machines: tuple[str, ...], labelled: bool = True, clips: int = 12) -> MadeUp:
    rng = np.random.default_rng(5)
    run = MadeUp([], [], [])
    for machine in machines:
        train = [
            clip(machine, "train", i, "source" if i < 2 * clips - 3 else "target", "normal", machine != "valve")
            for i in range(2 * clips)
        ]
        test: list[Clip] = []
        domains: tuple[Domain, ...] = ("source", "target")
        labels: tuple[Label, ...] = ("normal", "anomaly")
        if labelled:
            test = [
                clip(machine, "test", i, d, w, machine != "valve")
                for d in domains
                for w in labels
                for i in range(clips)
            ]
        else:
            test = [clip(machine, "test", i, None, None, attributes=False) for i in range(4 * clips)]
        run.normal += [ScoredClip(one, float(rng.gamma(9, 0.02))) for one in train]
        run.scored += [ScoredClip(one, float(rng.gamma(13 if one.label == "anomaly" else 9, 0.02))) for one in test]
        run.machines.append(
            EmbeddedMachine(machine, (*train, *test), rng.normal(size=(len(train) + len(test), 16)).astype(np.float32))
        )
    return run


def report_data(run: MadeUp, labelled: bool = True) -> ReportData:
    results = machine_results(run.scored) if labelled else {}
    total = omega(results) if labelled else None
    return ReportData(
        name="runs/made-up",
        created_at=datetime(2026, 5, 4, 3, 2, tzinfo=UTC),
        sections=decide_sections(run.scored, run.normal),
        results=results,
        omega=total,
        interval=None if total is None else (total - 0.02, total + 0.02),
        machines=tuple(run.machines),
        stages=(StageTime("pretrain", 5400), StageTime("finetune", 45)),
        settings={"seed": 3, "finetune": {"epochs": 30, "betas": [0.9, 0.95]}},
        versions={"asd-edge": "0.1.0"},
    )


@pytest.fixture(scope="module")
def data() -> ReportData:
    made = report_data(made_up(("fan", TRICKY, "valve")))
    reference = ReferenceColumn("baseline", {"fan": MachineResult(0.7096, 0.3875, None)}, 0.5626)
    return replace(made, references=(reference,))


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    return render(data, loud_as_numbered, np.random.default_rng(0))


class Reader(HTMLParser):
    """Text without styles and scripts, every address, table rows, and tags that were opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.inside = ""
        self.in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append((tag, given))
        self.addresses += [given[name] for name in ("src", "href") if name in given]
        self.inside = tag
        self.in_cell |= tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""
        self.in_cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside in ("style", "script"):
            return
        self.text += data
        if self.in_cell:
            self.rows[-1][-1] += data.strip()


def pictures(page: str) -> list[ET.Element]:
    found = [a for a in Reader(page).addresses if a.startswith("data:image/svg+xml")]
    return [ET.fromstring(unquote(address.split(",", 1)[1])) for address in found]


# --- what it says


def test_report_asks_nothing_of_the_network(page: str) -> None:
    reader = Reader(page)
    assert len([a for a in reader.addresses if a.startswith("data:")]) > 20
    assert all(a.startswith(("data:", "#")) for a in reader.addresses)
    assert "@import" not in page
    assert "url(" not in re.sub(r"(src|href)=\"[^\"]*\"", "", page)
    (policy,) = [given["content"] for tag, given in reader.tags if given.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_report_leads_where_its_links_point(page: str) -> None:
    reader = Reader(page)
    names = [given["id"] for _, given in reader.tags if "id" in given]
    assert len(names) == len(set(names))
    assert {a[1:] for a in reader.addresses if a.startswith("#")} <= set(names)


def test_report_gives_every_figure_beside_the_reference_and_the_total(page: str, data: ReportData) -> None:
    rows = [[html.unescape(cell) for cell in row] for row in Reader(page).rows]
    fan = data.results["fan"]
    assert fan.auc_source is not None
    assert ["fan", "AUC (source)", f"{100 * fan.auc_source:.2f}", "70.96"] in [
        [c.removeprefix("▼") for c in row] for row in rows
    ]
    assert any(row[0] == "pAUC" and row[-1] == "–" for row in rows), "the reference has no pAUC"
    assert data.omega is not None
    assert ["total score Ω", f"{100 * data.omega:.2f}", "56.26"] in rows
    section = data.sections[0]
    quality = section.quality["target"]
    decided = [
        (one.clip.label, anomalous)
        for one, anomalous in zip(section.scored, section.anomalous, strict=True)
        if one.clip.domain == "target"
    ]
    wrong = [f"{decided.count(pair)}of 12" for pair in (("normal", True), ("anomaly", False))]
    assert ["target", *wrong, *(f"{100 * v:.1f}" for v in (quality.precision, quality.recall, quality.f1))] in rows
    assert ["finetune.betas", "0.9, 0.95"] in rows
    assert ["pretrain", "1 h 30 min", "99 %"] in rows


def test_report_of_a_name_with_markup_shows_it_as_text(page: str) -> None:
    reader = Reader(page)
    assert TRICKY in html.unescape(reader.text)
    assert TRICKY not in page
    assert page.count("<script") == 1


def test_report_pictures_are_sound_svg_with_text_and_words_for_who_can_not_see(page: str) -> None:
    drawn = pictures(page)
    assert len(drawn) > 3 * 4
    words = [" ".join(e.itertext()) for e in drawn]
    assert sum("anomaly score" in w for w in words) == 3
    assert sum("false-positive rate" in w and "region of pAUC" in w for w in words) == 3
    assert sum("embeddings by label" in w for w in words) == 3
    assert sum("embeddings by attributes" in w for w in words) == 2, (
        "valve has none, so all its clips are alike in them"
    )
    assert all(given["alt"] for tag, given in Reader(page).tags if tag == "img")
    assert "No map by attributes: all clips are alike in it." in Reader(page).text


def test_report_without_labels_shows_scores_and_maps_only() -> None:
    reader = Reader(
        render(
            report_data(made_up(("AutoTrash",), labelled=False), labelled=False),
            loud_as_numbered,
            np.random.default_rng(0),
        )
    )
    assert "carry no labels" in reader.text
    assert "Worst" not in reader.text
    assert "Ω" not in reader.text
    assert not [tag for tag, _ in reader.tags if tag == "audio"]


def test_report_of_the_same_data_and_seed_is_the_same_file() -> None:
    few = report_data(made_up(("fan",), clips=4))
    assert render(few, loud_as_numbered, np.random.default_rng(1)) == render(
        few, loud_as_numbered, np.random.default_rng(1)
    )


def test_write_report_where_nothing_can_be_written_names_the_file(tmp_path: Path) -> None:
    few = report_data(made_up(("fan",), clips=4))
    with pytest.raises(StageError, match=r"gone/report.html: the report can't be written: No such file"):
        write_report(few, tmp_path / "gone" / "report.html", loud_as_numbered, np.random.default_rng(1))


# --- what it is made from


def test_roc_curves_enclose_the_areas_that_the_evaluation_states(data: ReportData) -> None:
    for section in data.sections:
        everything, source, target = roc_curves(section)
        result = data.results[section.machine]
        assert np.trapezoid(source.tpr, source.fpr) == pytest.approx(result.auc_source, abs=1e-12)
        assert np.trapezoid(target.tpr, target.fpr) == pytest.approx(result.auc_target, abs=1e-12)
        assert result.pauc is not None
        assert everything.label == f"all clips, pAUC {100 * result.pauc:.1f}"
        assert (everything.partial, source.partial, target.partial) == (True, False, False)


def test_worst_mistakes_are_the_furthest_on_the_wrong_side_of_their_threshold(data: ReportData) -> None:
    for kind, label, sign in (("miss", "anomaly", -1), ("false alarm", "normal", 1)):
        far = []
        for section in data.sections:
            spread = np.std([one.score for one in section.scored])
            far += [
                (sign * (one.score - section.threshold) / spread, section.machine, one.score)
                for one in section.scored
                if one.clip.label == label and sign * (one.score - section.threshold) > 0
            ]
        found = worst_mistakes(data.sections, kind, 5, loud_as_numbered)  # type: ignore[arg-type]
        expected = sorted(far, reverse=True)[:5]
        assert len(expected) == 5
        assert [(w.machine, w.score) for w in found] == [(machine, score) for _, machine, score in expected]
        assert [w.deviations for w in found] == pytest.approx([deviations for deviations, _, _ in expected])


def test_worst_mistakes_play_the_clip_itself_at_a_common_peak(data: ReportData) -> None:
    (found,) = worst_mistakes(data.sections, "miss", 1, loud_as_numbered)
    played, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(found.sound.split(",", 1)[1])), dtype="float64")
    (original,) = [
        loud_as_numbered(one.clip)
        for s in data.sections
        for one in s.scored
        if s.title == found.machine and one.score == found.score
    ]
    assert rate_hz == 16_000
    assert 20 * np.log10(np.abs(played).max()) == pytest.approx(-3, abs=0.01)
    np.testing.assert_allclose(played, original * 10 ** (found.lifted_db / 20), atol=2 / 32768)


def test_worst_mistakes_of_a_silent_clip_stay_silent(data: ReportData) -> None:
    (found,) = worst_mistakes(data.sections, "miss", 1, lambda _: np.zeros(160_000, np.float32))
    played, _ = soundfile.read(io.BytesIO(base64.b64decode(found.sound.split(",", 1)[1])))
    assert not played.any()


@pytest.mark.parametrize(("count", "method"), [(12, "PCA"), (80, "t-SNE")])
def test_project_keeps_clusters_together_and_apart(count: int, method: str) -> None:
    rng = np.random.default_rng(0)
    second = np.arange(count) % 2 == 1
    embeddings = (rng.normal(size=(count, 32)) * 0.05 + np.where(second, 1, -1)[:, None]).astype(np.float32)
    points, used = project(embeddings, np.random.default_rng(1))
    assert (used, points.shape) == (method, (count, 2))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag(np.full(count, np.inf))
    assert (second[distances.argmin(axis=1)] == second).all()


@pytest.mark.parametrize("count", [1, 2, 40])
def test_project_of_equal_embeddings_gives_finite_points(count: int) -> None:
    points, _ = project(np.ones((count, 8), np.float32), np.random.default_rng(0))
    assert points.shape == (count, 2)
    assert np.isfinite(points).all()


def test_groups_by_of_many_words_keeps_the_frequent_and_joins_the_rest() -> None:
    words = [f"v{i}" for i in range(20) for _ in range(20 - i)]
    groups = groups_by(words, most=14)
    assert groups[0].label == "7 other"
    assert [g.label for g in groups[1:]] == [f"v{i}" for i in range(13)]
    assert len({(g.colour, g.marker) for g in groups}) == 14
    assert (np.sum([g.members for g in groups], axis=0) == 1).all()


def test_embedding_map_of_many_long_attributes_keeps_its_points_in_a_wide_frame() -> None:
    words = [", ".join(f"attribute{k} value{i * k % 13}" for k in range(9)) for i in range(60)]
    drawn = ET.fromstring(
        embedding_map(np.random.default_rng(0).normal(size=(60, 2)), groups_by(words), "embeddings by attributes")
    )
    width = float(drawn.attrib["width"].removesuffix("pt"))
    frame = next(e for e in drawn.iter() if e.attrib.get("id") == "patch_2")[0].attrib["d"]
    across = [float(x) for x in re.findall(r"[ML] ([\d.]+)", frame)]
    assert max(across) - min(across) > 0.8 * width
    shown = [t.strip() for t in drawn.itertext() if "attribute0" in t]
    assert len(shown) == len(set(words)) == 13
    assert all(len(t) < 60 and "…" in t for t in shown)


def test_attribute_words_leave_out_what_all_clips_share() -> None:
    first, second = clip("fan", "train", 1, "source", "normal"), clip("fan", "train", 2, "source", "normal")
    assert attribute_words([first, second]) == ["vel 1", "vel 2"]
    assert attribute_words([first, replace(second, attributes=())]) == ["vel 1, loc A", "none stated"]
    assert attribute_words([first, first]) == ["none stated", "none stated"]


def test_flat_settings_of_nested_settings_are_dotted_keys() -> None:
    assert flat_settings({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}) == [
        ("a.b.c", "1"),
        ("a.d", "1, 2"),
        ("e", "–"),
    ]


# --- what a browser makes of it

PROBE = """<script>
const complaints = [];
addEventListener("error", (event) => complaints.push(event.message || `${event.target.tagName} can't be loaded`), true);
addEventListener("securitypolicyviolation", (event) => complaints.push(`blocked: ${event.blockedURI}`));
addEventListener("load", async () => {
  for (const image of document.images) image.loading = "eager";
  await Promise.all([...document.images].map((image) => image.decode()));
  const sounds = [...document.querySelectorAll("audio")];
  await Promise.all(sounds.map((sound) => sound.readyState > 0 || new Promise((done) => sound.addEventListener("loadedmetadata", done))));
  const boxes = [...document.querySelectorAll(".scroll, nav")].map((box) => box.tabIndex);
  parent.postMessage(JSON.stringify({
    complaints, boxes,
    images: [...document.images].map((image) => image.naturalWidth),
    seconds: sounds.map((sound) => sound.duration),
    page_px: document.documentElement.scrollWidth, window_px: innerWidth,
  }), "*");
});
</script></head>"""


FRAME = """<!doctype html><title>frame</title><iframe src="page.html" width="{width_px}" height="900" style="border: 0"></iframe>
<script>addEventListener("message", (event) => {{
  const found = document.createElement("script");
  found.type = "application/json";
  found.textContent = event.data;
  document.body.append(found);
}});</script>"""


def browse(page: str, folder: Path, width_px: int) -> tuple[dict[str, Any], list[str]]:
    """Load a page in headless Chromium: what a probe in it finds, and what the console says.

    It is loaded in a frame, for no window is as narrow as a phone.
    """
    assert CHROMIUM is not None
    file = folder / "frame.html"
    file.write_text(FRAME.format(width_px=width_px), encoding="utf-8")
    (folder / "page.html").write_text(page.replace("</head>", PROBE, 1), encoding="utf-8")
    quiet = [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--disable-gpu",
    ]
    ran = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", *quiet, f"--user-data-dir={folder / 'profile'}", "--window-size=1400,950",
         "--enable-logging=stderr", "--v=0", "--virtual-time-budget=20000", "--timeout=240000", "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=2.5 * PATIENT_S, check=False,
    )  # fmt: skip
    found = re.search(r'<script type="application/json">(.*?)</script>', ran.stdout, re.DOTALL)
    assert found, f"the page never finished loading: {ran.stderr[-2000:]}"
    return json.loads(found[1]), [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)")
@pytest.mark.parametrize("width_px", [1280, 390])
def test_report_in_a_browser_loads_every_picture_and_sound_without_complaint(
    page: str, tmp_path: Path, width_px: int
) -> None:
    found, console = browse(page, tmp_path, width_px)
    assert console == []
    assert found["complaints"] == []
    assert found["window_px"] == width_px
    assert found["page_px"] <= width_px, "the page must not scroll sideways"
    assert len(found["images"]) > 20
    assert min(found["images"]) > 0
    assert found["seconds"] == [pytest.approx(10.0, abs=0.01)] * len(found["seconds"])
    assert len(found["seconds"]) > 5
    assert set(found["boxes"]) == {0}, "what scrolls must be reachable by keyboard"


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)")
def test_browser_with_a_page_that_fails_notices_it(page: str, tmp_path: Path) -> None:
    broken = page.replace(
        "</body>", "<script>nowhere();</script><script src='https://example.org/x.js'></script></body>"
    )
    found, console = browse(broken, tmp_path, 1280)
    assert any("nowhere" in line for line in console)
    assert any("nowhere" in complaint for complaint in found["complaints"])
    assert any("example.org" in complaint for complaint in found["complaints"])
