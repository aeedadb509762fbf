"""What a window costs, step by step: one thread, medians of processor time, ratios of one run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from stopwatch import Row, held, median_ms, ms_row

from asd_daemon.hear.windows.quality import unfit_reason
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.bundle.onnx_sessions import open_embedder, open_separator, window_features
from asd_daemon.judge.distances.nearest_neighbours import ExactIndex, HnswIndex
from asd_daemon.judge.features.log_mel import eat_input, log_mel
from asd_daemon.judge.features.views import VIEW_NAMES, view_vectors
from asd_daemon.judge.scoring.scorer import HEARD, SEPARATED, FeatureExtractor, Scorer
from asd_daemon.waveform import WINDOW_S

F32 = NDArray[np.float32]


def mel_rows(window: F32) -> list[Row]:
    """Log-mel against Kaldi's C++ through Python, and librosa."""
    import kaldi_native_fbank as knf
    import librosa

    def kaldi() -> object:
        options = knf.FbankOptions()
        options.frame_opts.dither = 0
        options.frame_opts.window_type = "hanning"
        options.mel_opts.num_bins = 128
        options.use_energy = False
        bank = knf.OnlineFbank(options)
        bank.accept_waveform(16_000, window)
        bank.input_finished()
        return np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])

    def with_librosa() -> object:
        mel = librosa.feature.melspectrogram(y=window, sr=16_000, n_fft=512, win_length=400, hop_length=160, n_mels=128)
        return np.log(mel + 1e-10)

    ours = median_ms(lambda: log_mel(window))
    theirs, librosas = median_ms(kaldi), median_ms(with_librosa)
    return [
        ms_row("log-mel of 10 s", ours),
        ms_row(
            "kaldi-native-fbank 1.22.5 (C++)",
            theirs,
            held(ours / theirs, 0.25, f"ours takes {ours / theirs:.2f} of it (≤ 0.25)"),
        ),
        ms_row(
            f"librosa {librosa.__version__}",
            librosas,
            held(ours / librosas, 1.0, f"ours takes {ours / librosas:.2f} of it (< 1)"),
        ),
    ]


def step_rows(int8: Bundle, fp32: Bundle, window: F32) -> list[Row]:
    """Every step of a window of edge size, and the whole, in both precisions."""
    features = window_features(window)[None]
    mel = log_mel(window)
    rows = [ms_row("quality", median_ms(lambda: unfit_reason(window)))]
    rows.append(ms_row("log-mel (each of 2)", median_ms(lambda: log_mel(window))))
    rows.append(ms_row("normalise and pad (each of 2)", median_ms(lambda: eat_input(mel))))
    whole = {}
    for precision, bundle in (("fp32", fp32), ("int8", int8)):
        embedder, separator = open_embedder(bundle), open_separator(bundle)
        hearing = FeatureExtractor(embedder, separator)
        neighbours = bundle.nearest("fan")
        heard, alone = neighbours.index(), neighbours.separated_index()
        separated, embedded = (
            median_ms(lambda s=separator: s.separate(window)),
            median_ms(lambda e=embedder: e.embed(features)),
        )  # type: ignore[misc]
        sizes = {
            name: bundle.manifest.files[
                f"{name}.onnx" if precision == "int8" or name == "separator" else f"{name}.fp32.onnx"
            ].bytes
            for name in ("separator", "embedder")
        }
        rows.append(ms_row(f"separator {precision}", separated, f"{sizes['separator'] / 1e6:.1f} MB"))
        rows.append(ms_row(f"embedder {precision} (each of 2)", embedded, f"{sizes['embedder'] / 1e6:.1f} MB"))

        def judge(hearing: FeatureExtractor = hearing, heard: object = heard, alone: object = alone) -> None:
            unfit_reason(window)
            vectors = hearing.vectors(window, (HEARD, SEPARATED))
            heard.nearest(vectors[HEARD])  # type: ignore[attr-defined]
            alone.nearest(vectors[SEPARATED])  # type: ignore[attr-defined]

        whole[precision] = median_ms(judge)
    views = median_ms(lambda: view_vectors(window, mel, views=list(VIEW_NAMES)))
    rows.append(
        ms_row(f"all {len(VIEW_NAMES)} views that need no model", views, "a machine uses those that were chosen for it")
    )
    bank = np.asarray(int8.bank("fan"))
    rows.append(
        ms_row(f"search, exact, {len(bank)} × {bank.shape[1]}", median_ms(lambda: ExactIndex(bank).nearest(bank[:1])))
    )
    if HnswIndex.available():
        graph = HnswIndex.build(bank)
        rows.append(
            ms_row(f"search, hnswlib, {len(bank)} × {bank.shape[1]}", median_ms(lambda: graph.nearest(bank[:1])))
        )
    for precision, ms in whole.items():
        share = ms / (WINDOW_S * 1000)
        rows.append(
            ms_row(f"**a window end to end, {precision}**", ms, held(share, 0.05, f"{share:.2%} of real time (≤ 5 %)"))
        )
    rows.append(Row("int8 against fp32", f"{whole['int8'] / whole['fp32']:.2f}", "of the time of a window"))
    return rows


def shipped_rows(bundle: Bundle, window: F32) -> list[Row]:
    """The bundle that comes with the program, machine by machine."""
    rows = []
    for machine in bundle.machines:
        scorer = Scorer(bundle, machine)
        ms = median_ms(lambda s=scorer: s.score(window), runs=21)  # type: ignore[misc]
        rows.append(ms_row(f"a window of {machine}", ms, ", ".join(scorer.views)))
    return rows


def model_rows(figures: dict[str, object]) -> list[list[str]]:
    """What the exporter measured of each model, from its manifest."""
    lines = []
    for name, tried in (("embedder", figures), ("separator", figures["separator"])):
        assert isinstance(tried, dict)
        for c in tried["candidates"]:
            verdict = (
                "**chosen**" if c["way"] == tried["chosen"] else f"refused: {c['refused']}" if c["refused"] else ""
            )
            kept = f"{len(c['kept_fp32'])} operators stay fp32" if c["kept_fp32"] else ""
            lost = "" if c["loss_db"] is None else f"{c['loss_db']:.2f}"
            omega = "" if c["omega"] is None else f"{c['omega']:.1f}"
            share, told = f"{c['score_error_share']:.1%}", "; ".join(filter(None, (verdict, kept)))
            lines.append([name, c["way"], f"{c['bytes'] / 1e6:.2f}", f"{c['window_ms']:.1f}", share, lost, omega, told])
    return lines
