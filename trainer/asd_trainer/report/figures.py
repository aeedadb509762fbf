"""The pictures of a report, as SVG: score histograms, ROC, embedding maps, spectrograms.

Owns their look: the colours of Okabe and Ito that the colour-blind tell apart, always paired with a shape, hatch or dash that survives
grey print; sizes that are read on a phone without zooming. It computes no score and writes no file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import matplotlib as mpl
import matplotlib.colors
import matplotlib.ticker
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from asd_daemon.judge.features.log_mel import FEATURE
from asd_trainer.evaluate.evaluation import MAX_FPR

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Okabe and Ito, Color Universal Design (2008); their yellow is too pale for white paper
BLACK, ORANGE, SKY, GREEN = "#000000", "#e69f00", "#56b4e9", "#009e73"
BLUE, VERMILLION, PURPLE, GREY = "#0072b2", "#d55e00", "#cc79a7", "#8c8c8c"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = ("o", "^", "s", "D", "v", "P", "X")

WIDTH_IN = 4.1  # 394 px on screen: a phone's width, a third of a desk's
DYNAMIC_RANGE_DB = 60.0
LONG_LABEL = 24  # characters: two columns of a legend hold no more
LATIN_DB = 10.0 / np.log(10.0)  # natural log of power → decibels

_AS_THEY_ARE = (
    " /:=;,()+-.*!@$?[]{}|^`~_&'"  # in an address; images inside are base64 already, twice would cost a third more
)

STYLE: Any = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.linewidth": 0.8,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "svg.fonttype": "none",  # text stays text: small, crisp, selectable
    "svg.hashsalt": "asd-edge",  # the same picture gives the same bytes
    "figure.dpi": 144.0,
}


@dataclass(frozen=True)
class Picture:
    """An SVG as a data address, with words for those who can't see it."""

    address: str
    words: str

    @classmethod
    def of(cls, svg: str, words: str) -> Picture:
        """The picture of an SVG document."""
        return cls("data:image/svg+xml;charset=utf-8," + quote(" ".join(svg.split()), safe=_AS_THEY_ARE), words)


@dataclass(frozen=True)
class DomainScores:
    """Test scores of one domain; a data set without labels has `unlabelled` ones only."""

    title: str
    normal: F64
    anomalous: F64
    unlabelled: F64


@dataclass(frozen=True)
class Curve:
    """One ROC curve with its legend; `partial` asks for the shaded region of pAUC under it."""

    label: str
    fpr: F64
    tpr: F64
    partial: bool = False


@dataclass(frozen=True)
class Group:
    """Points of a map that share a colour and a marker."""

    label: str
    members: NDArray[np.bool_]
    colour: str
    marker: str
    faint: bool = False


def score_histogram(domains: Sequence[DomainScores], training: F64, threshold: float) -> str:
    """Test scores, a panel a domain: normal clips upwards, anomalous ones downwards, the training clips' outline, the threshold."""
    every = np.concatenate(
        [training, *(np.concatenate([d.normal, d.anomalous, d.unlabelled]) for d in domains), [threshold]]
    )
    edges = np.linspace(every.min(), np.nextafter(every.max(), np.inf), 31)
    with _figure(0.9 + 1.35 * len(domains)) as (figure, svg):
        panels = figure.subplots(len(domains), 1, sharex=True, squeeze=False)[:, 0]
        shown: dict[str, Any] = {}
        for axes, domain in zip(panels, domains, strict=True):
            upwards = domain.normal if domain.normal.size else domain.unlabelled
            if training.size and upwards.size:
                outline = np.histogram(training, edges)[0] * (upwards.size / training.size)
                shown["training, scaled"] = axes.stairs(outline, edges, color=BLACK, linewidth=0.9)
            for scores, label, colour, hatch, sign in (
                (domain.normal, "normal", BLUE, "", 1),
                (domain.unlabelled, "no label", GREEN, "....", 1),
                (domain.anomalous, "anomalous", VERMILLION, "////", -1),
            ):
                if scores.size:
                    shown[label] = _bars(axes, sign * np.histogram(scores, edges)[0], edges, colour, hatch)
            shown["threshold"] = axes.axvline(threshold, color=BLACK, linewidth=1.2, linestyle="--")
            axes.axhline(0, color="#444444", linewidth=0.8)
            axes.set(title=domain.title, ylabel="clips")
            axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=True))
            axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        panels[-1].set_xlabel("anomaly score")
        figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=2, handlelength=2.2)
    return svg[0]


def _bars(axes: Axes, counts: NDArray[np.int64], edges: F64, colour: str, hatch: str) -> Artist:
    face = _pale(colour, 0.25 if hatch else 0.6)
    return axes.stairs(counts, edges, fill=True, facecolor=face, edgecolor=colour, linewidth=0.9, hatch=hatch)


def roc(curves: Sequence[Curve]) -> str:
    """ROC curves; the region that pAUC counts (false-positive rate up to 0.1) is shaded under the curve that asks for it."""
    with _figure(3.75) as (figure, svg):
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="chance")
        for i, curve in enumerate(curves):
            axes.plot(
                curve.fpr,
                curve.tpr,
                color=(BLACK, BLUE, VERMILLION)[i % 3],
                linestyle=("-", "--", "-.")[i % 3],
                label=curve.label,
            )
            if curve.partial:
                end = np.interp(MAX_FPR, curve.fpr, curve.tpr)
                inside = curve.fpr <= MAX_FPR
                axes.fill_between(
                    np.append(curve.fpr[inside], MAX_FPR),
                    np.append(curve.tpr[inside], end),
                    facecolor=_pale(ORANGE, 0.4), edgecolor=ORANGE, hatch="////", linewidth=0, label="region of pAUC",
                )  # fmt: skip
                axes.axvline(MAX_FPR, color=ORANGE, linewidth=0.8)
        axes.set(
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            aspect="equal",
            xlabel="false-positive rate",
            ylabel="true-positive rate",
        )
        figure.legend(loc="outside lower center", ncols=2, handlelength=2.4, columnspacing=1.2)
    return svg[0]


def embedding_map(points: F64, groups: Sequence[Group], title: str) -> str:
    """Clips as points in the plane (N, 2), coloured and shaped by group; the points are one image, the words stay text."""
    labels = [_plain(_shortened(group.label)) for group in groups]
    columns = 1 if max(map(len, labels)) > LONG_LABEL else 2
    with _figure(3.3 + 0.17 * -(-len(groups) // columns)) as (figure, svg):
        axes = figure.subplots()
        for group, label in zip(groups, labels, strict=True):
            x, y = points[group.members].T
            axes.scatter(
                x, y, s=14 if group.faint else 24, c=group.colour, marker=group.marker, alpha=0.5 if group.faint else 0.85,
                linewidths=0, label=f"{label} ({x.size})", rasterized=True,
            )  # fmt: skip
        axes.set_title(_plain(title))
        axes.set(xticks=[], yticks=[])
        axes.spines[["top", "right"]].set_visible(True)
        figure.legend(loc="outside lower center", ncols=columns, handletextpad=0.2, columnspacing=1.2, labelspacing=0.3)
    return svg[0]


def spectrogram(log_mel: F32) -> str:
    """Log-mel (T, 128) of a clip, 60 dB below its loudest point, on a scale that is as readable in grey."""
    decibels = log_mel.T * LATIN_DB
    top = float(decibels.max())
    seconds = log_mel.shape[0] * FEATURE.hop_samples / FEATURE.sample_rate_hz
    with _figure(1.75) as (figure, svg):
        axes = figure.subplots()
        halved = (
            decibels[:, : decibels.shape[1] // 2 * 2].reshape(FEATURE.mel_bins, -1, 2).max(axis=2)
        )  # (128, T/2): 20 ms a column
        image = axes.imshow(
            halved, origin="lower", aspect="auto", cmap="cividis", vmin=top - DYNAMIC_RANGE_DB, vmax=top,
            extent=(0, seconds, 0, FEATURE.mel_bins), interpolation="none",
        )  # fmt: skip
        ticks_hz = np.array([100, 500, 1000, 2000, 4000, 7000])
        axes.set_yticks(_mel_position(ticks_hz), [f"{hz / 1000:g}" for hz in ticks_hz])
        axes.set(xlabel="time (s)", ylabel="frequency (kHz)")
        bar = figure.colorbar(image, ax=axes, pad=0.02, ticks=[top - DYNAMIC_RANGE_DB, top - DYNAMIC_RANGE_DB / 2, top])
        bar.ax.set_yticklabels([f"−{DYNAMIC_RANGE_DB:g} dB", f"−{DYNAMIC_RANGE_DB / 2:g}", "0"])
        bar.outline.set_visible(False)
    return svg[0]


def groups_by(labels: Sequence[str], *, faint: Mapping[str, bool] | None = None, most: int = 14) -> tuple[Group, ...]:
    """Group clips by a word each; the most frequent words get their own colour and shape, the rest are "other"."""
    words = np.array(labels)
    names, counts = np.unique(words, return_counts=True)
    ranked = [str(names[i]) for i in np.argsort(-counts, kind="stable")]
    own, rest = (ranked, []) if len(ranked) <= most else (ranked[: most - 1], ranked[most - 1 :])
    groups = [
        Group(
            word,
            words == word,
            CYCLE[i % len(CYCLE)],
            MARKERS[(i + i // len(CYCLE)) % len(MARKERS)],
            bool(faint and faint.get(word)),
        )
        for i, word in enumerate(sorted(own, key=ranked.index))
    ]
    if rest:
        groups.insert(0, Group(f"{len(rest)} other", np.isin(words, rest), GREY, ".", faint=True))
    return tuple(groups)


def _pale(colour: str, share: float) -> tuple[float, ...]:
    """A colour thinned with white; a transparent one would thin its hatch too."""
    return tuple(1 - share * (1 - np.array(mpl.colors.to_rgb(colour))))


@contextmanager
def _figure(height_in: float) -> Iterator[tuple[Figure, list[str]]]:
    """A figure in the report's style; when the block ends, the list holds its SVG."""
    svg: list[str] = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        yield figure, svg
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg.append(buffer.getvalue())


def _mel_position(hz: NDArray[np.int64]) -> F64:
    """Where frequencies lie on the axis of mel bins."""
    low, high = np.log1p(np.array([FEATURE.low_hz, FEATURE.high_hz]) / 700.0)
    return np.asarray((np.log1p(hz / 700.0) - low) / (high - low) * FEATURE.mel_bins, np.float64)


def _shortened(text: str) -> str:
    return text if len(text) <= 2 * LONG_LABEL else f"{text[: 2 * LONG_LABEL - 1]}…"


def _plain(text: str) -> str:
    """Text that matplotlib prints as it is: no formulas between dollars, no hidden legend entries."""
    shown = text.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
