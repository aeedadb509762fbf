"""What has changed in a sound, in kinds that a fitter has words for: knocks, hiss, a tone, pulsing, strokes out of time.

Owns the rules by which a window's figures differ from the usual ones in a way that has a name. Each rule says what it heard and how
clearly; 1 is what is worth saying of a machine whose normal sound never does that. The words themselves are not chosen here.

Two things tell blows from bursts of noise that come as often: blows ring alike, and their envelope has harmonics where a swell has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.features.change import Change, ChangeKind
from asd_daemon.judge.features.usual_sound import LAG_TOLERANCE, UsualSound, regularity, sharpness_db
from asd_daemon.judge.features.window_summary import (
    ENVELOPE_BANDS_HZ,
    FIRST_LAG,
    LAG_S,
    MODULATION_STEP_HZ,
    TONE_HZ,
    WindowSummary,
    third_octave_edges_hz,
)
from asd_daemon.waveform import WINDOW_S

F32 = NDArray[np.float32]


_ALIKE, _MORE_ALIKE = 0.6, 0.05  # likeness of blows, and how much more than usual
_SLOW_FIRST, _FAST_FIRST, _RATTLE_FIRST, _PULSE_END = 8, 40, 300, 330  # 0.8, 4, 30 and 33 Hz
_LEAST_DEPTH = 0.12
_LOUDEST, _MIDDLE, _UPPER = 5, 2, 3  # places in LEVELS
_HISS_FIRST, _DULL_FIRST, _RUMBLE_END = 8, 10, 9  # third octaves from 635 and 1008 Hz, to 800 Hz
_LEAST_DB = 2.5
_THIRD_LOUDEST, _RARE_DB = 2, 6.0
_FIRST_LINE, _LAST_LINE = round(60 / TONE_HZ), round(7200 / TONE_HZ)
_SPEED_STEP, _SPEED_MOST, _SPEED_LEAST = 0.005, 30, 3
_SPEED_LINES = np.exp(np.arange(np.log(400), np.log(6000), _SPEED_STEP)) / TONE_HZ


def measure_changes(usual: UsualSound, window: WindowSummary) -> list[Change]:
    """All that a window does more than usual, however little, in the order of kinds."""
    found = [change for rule in _RULES if (change := rule(usual, window)) is not None]
    return sorted(found, key=lambda change: list(ChangeKind).index(change.kind))


def _speed(usual: UsualSound, window: WindowSummary) -> Change | None:
    """All tones have moved by the same fraction."""
    before, now = (
        np.interp(_SPEED_LINES, np.arange(t.shape[0]), np.maximum(t - 3, 0)) for t in (usual.tones_db, window.tones_db)
    )
    if not before.any() or not now.any():
        return None
    match = np.correlate(now, before, "full") / np.sqrt(np.square(now).sum() * np.square(before).sum())
    still = before.shape[0] - 1
    match = match[still - _SPEED_MOST : still + _SPEED_MOST + 1]
    moved = int(np.argmax(match)) - _SPEED_MOST
    unmoved = match[_SPEED_MOST - 2 : _SPEED_MOST + 3].max()
    if abs(moved) < _SPEED_LEAST or match.max() < 0.5:
        return None
    percent = 100 * np.expm1(moved * _SPEED_STEP)
    kind = ChangeKind.FASTER if moved > 0 else ChangeKind.SLOWER
    return Change(kind, float((match.max() - unmoved) / 0.25), percent=round(abs(percent), 1))


def _strokes(usual: UsualSound, window: WindowSummary) -> Change | None:
    """Strokes that came again at even times no longer do; or they do, after another time."""
    period_s = (usual.period + FIRST_LAG) * LAG_S
    lost = usual.regularity - regularity(window.repetition, usual.period)
    if usual.regularity <= 0.55 or lost < 4 * usual.regularity_std:
        return None
    low, high = round(usual.period * 0.8 - FIRST_LAG * 0.2), round(usual.period * 1.25 + FIRST_LAG * 0.25)
    nearby = window.repetition[max(low, 0) : high]
    best = max(low, 0) + int(np.argmax(nearby))
    if nearby.max() > 0.8 * usual.regularity and abs(best - usual.period) > LAG_TOLERANCE:
        ratio = period_s / ((best + FIRST_LAG) * LAG_S)
        kind = ChangeKind.FASTER if ratio > 1 else ChangeKind.SLOWER
        return Change(kind, lost / 0.25, percent=round(100 * abs(ratio - 1), 1))
    return Change(ChangeKind.STROKES, lost / 0.25, rate_hz=round(1 / period_s, 2), even=True)


def _knocks(usual: UsualSound, window: WindowSummary) -> Change | None:
    """Short blows that ring alike, many times a second or now and then; or rare loud ones, whatever they sound like."""
    swings = _unusual_modulation(usual, window)
    rise = window.envelopes_db - usual.envelopes_db
    sharper = sharpness_db(window.envelopes_db) - usual.sharpness_db
    rarest = (window.peaks_db - usual.peaks_db)[:, _THIRD_LOUDEST]  # blows too few and short for a percentile
    sudden = np.maximum(rise[:, _LOUDEST], rarest) - rise[:, _UPPER]
    is_sharper = (sharper > 4 * usual.sharpness_std_db) | (rarest > _RARE_DB)
    alike = window.likeness >= np.maximum(_ALIKE, usual.likeness + _MORE_ALIKE)
    best: Change | None = None
    for band in range(1, len(ENVELOPE_BANDS_HZ)):  # bursts of noise in a band as narrow as the lowest look alike too
        if not is_sharper[band]:
            continue
        even, strength = _is_even(swings[band]), 0.0
        if even and alike[band] and _has_harmonics(swings[band], window.modulation[band] - usual.modulation[band]):
            strength = max(sharper[band] / 2, float(swings[band, _FAST_FIRST:].max()) / 0.08)
        elif not even:
            if alike[band] and sharper[band] > max(2, 0.7 * rise[band, _MIDDLE]):
                strength = sharper[band] / 3 + 0.4
            if sudden[band] > max(3, rise[band, _UPPER]):
                strength = max(strength, sudden[band] / 3)
        if strength > (best.strength if best else 0):
            low_hz, high_hz = ENVELOPE_BANDS_HZ[band]
            db = round(float(max(rise[band, _LOUDEST], rarest[band])), 1)
            rate_hz, swell_hz = _blow_rates(swings[band]) if even else (_blows_counted(usual, window, band), None)
            best = Change(ChangeKind.KNOCKS, float(strength), db, rate_hz, even, swell_hz, low_hz, high_hz)
    return best


def _pulsing(usual: UsualSound, window: WindowSummary) -> Change | None:
    """An even swell between 0.8 and 33 times a second."""
    swings = _unusual_modulation(usual, window)[:, :_PULSE_END]
    band, rate = np.unravel_index(int(np.argmax(swings)), swings.shape)
    depth = float(swings[band, rate])
    if depth <= 0:
        return None
    low_hz, high_hz = ENVELOPE_BANDS_HZ[int(band)]
    return Change(ChangeKind.PULSING, depth / 0.1, rate_hz=_hz(int(rate)), even=True, from_hz=low_hz, to_hz=high_hz)


def _hiss(usual: UsualSound, window: WindowSummary) -> Change | None:
    """Neighbouring third octaves from 635 Hz are louder in their quiet or middle moments, by more than all are."""
    rise, deviations, common = _third_octaves(usual, window)
    change = _louder_range(ChangeKind.HISS, rise, deviations, common, _HISS_FIRST, None, 7)
    swings = _unusual_modulation(usual, window)[1:, _FAST_FIRST:_PULSE_END].max(axis=0)
    if change is None or swings.max() < _LEAST_DEPTH:
        return change
    return replace(change, rate_hz=_hz(_FAST_FIRST + int(np.argmax(swings))), even=True)


def _duller(usual: UsualSound, window: WindowSummary) -> Change | None:
    """Neighbouring third octaves from 1 kHz are softer in their loud moments and on the whole, by more than all are."""
    rise, deviations, common = _third_octaves(usual, window)
    softer = -np.where(np.minimum(deviations[2], deviations[3]) < -4, np.maximum(rise[2], rise[3]), 0) + min(common, 0)
    return _range(ChangeKind.DULLER, softer, _DULL_FIRST, None, 8)


def _rumble(usual: UsualSound, window: WindowSummary) -> Change | None:
    """Neighbouring third octaves below 800 Hz are louder, by more than all are."""
    rise, deviations, common = _third_octaves(usual, window)
    return _louder_range(ChangeKind.LOUDER, rise, deviations, common, 0, _RUMBLE_END, 12)


def _level(usual: UsualSound, window: WindowSummary) -> Change | None:
    """All third octaves together are louder or softer."""
    rise, deviations, common = _third_octaves(usual, window)
    same_way = float(np.mean(np.sign(rise[1]) == np.sign(common)))
    if same_way < 0.8 or abs(float(np.median(deviations[1]))) < 4:
        return None
    kind = ChangeKind.LOUDER if common > 0 else ChangeKind.SOFTER
    return Change(kind, abs(common) / 4, round(abs(common), 1))


def _tone(usual: UsualSound, window: WindowSummary) -> Change | None:
    """Lines of the spectrum stand out where no normal window has had one, even at another speed."""
    more = window.tones_db - usual.loudest_tones_db
    more[:_FIRST_LINE], more[_LAST_LINE:] = 0, 0
    peaks = np.where((more > np.roll(more, 1)) & (more >= np.roll(more, -1)), more, 0)
    strength = float(np.maximum(np.sort(peaks)[-4:] - 2, 0).sum() / 5)
    if strength <= 0:
        return None
    line = int(np.argmax(peaks))
    left, middle, right = (float(window.tones_db[line + i]) for i in (-1, 0, 1))
    bend = left - 2 * middle + right
    offset = 0.0 if bend >= 0 else float(np.clip((left - right) / (2 * bend), -0.5, 0.5))  # the top of a parabola
    return Change(ChangeKind.TONE, strength, round(float(peaks[line]), 1), tone_hz=round((line + offset) * TONE_HZ, 1))


_RULES: tuple[Callable[[UsualSound, WindowSummary], Change | None], ...] = (
    _speed,
    _strokes,
    _duller,
    _knocks,
    _hiss,
    _pulsing,
    _tone,
    _level,
    _rumble,
)


def _unusual_modulation(usual: UsualSound, window: WindowSummary) -> F32:
    """What of the depth of modulation is new, (4, 1300); 0 where it is within the usual or slower than 0.8 Hz."""
    more = window.modulation - usual.modulation
    unusual = np.where(more > 6 * usual.modulation_std, more, 0)
    unusual[:, :_SLOW_FIRST] = 0
    return np.asarray(unusual, np.float32)


def _is_even(swing: F32) -> bool:
    """Whether a swing from 4 Hz has one rate and its multiples; strokes that each sound alike have many, side by side."""
    rate = _rate(swing)
    beside = swing[int(0.6 * rate) : int(1.6 * rate)].copy()
    here = rate - int(0.6 * rate)
    beside[max(here - 5, 0) : here + 6] = 0
    return bool(swing[rate] >= _LEAST_DEPTH and beside.max() < 0.7 * swing[rate])


def _has_harmonics(swing: F32, more: F32) -> bool:
    """Whether a swing is a row of blows rather than a swell: it rattles, or twice to four times its rate is in it too."""
    rate = _rate(swing)
    multiples = [more[n * rate - n : n * rate + n + 1] for n in (2, 3, 4) if n * (rate + 1) < more.shape[0]]
    return bool(swing[_RATTLE_FIRST:].max() >= 0.1 or sum(max(m.max(), 0) for m in multiples) > 0.35 * swing[rate])


def _rate(swing: F32) -> int:
    """Place of the lowest rate from 4 Hz that swings nearly as much as the one that swings most, which may be a multiple of it."""
    strong = np.flatnonzero(swing[_FAST_FIRST:] >= 0.7 * swing[_FAST_FIRST:].max())
    low = _FAST_FIRST + int(strong[0])
    return low + int(np.argmax(swing[low : low + 6]))  # its top: a line is five places wide


def _blow_rates(swing: F32) -> tuple[float, float | None]:
    """How often blows come, and how often they swell, where the two can be told apart."""
    rate = _rate(swing[:_RATTLE_FIRST]) if swing[_FAST_FIRST:_RATTLE_FIRST].any() else 0
    rattle = _RATTLE_FIRST + int(np.argmax(swing[_RATTLE_FIRST:]))
    if rate == 0:
        return _hz(rattle), None
    is_multiple = abs(rattle / rate - round(rattle / rate)) * rate < 4 + 0.004 * rattle
    if is_multiple or swing[rattle] <= 0.4 * swing[rate]:
        return _hz(rate), None
    return _hz(rattle), _hz(rate) if swing[rate] > 0.4 * swing[rattle] else None


def _blows_counted(usual: UsualSound, window: WindowSummary, band: int) -> float:
    """How many tenths of a second are louder than usual ones can be, a second."""
    limit_db = usual.peaks_db[band, 0] + 2
    return round(max(int((window.peaks_db[band] > limit_db).sum()), 1) / WINDOW_S, 1)


def _third_octaves(usual: UsualSound, window: WindowSummary) -> tuple[F32, F32, float]:
    """Rises in dB and in standard deviations, (4, 18) each, and by how much all have risen."""
    rise = window.third_octaves_db - usual.third_octaves_db
    return rise, rise / usual.third_octaves_std_db, float(np.median(rise[1]))


def _louder_range(
    kind: ChangeKind, rise: F32, deviations: F32, common: float, first: int, end: int | None, scale: float
) -> Change | None:
    is_unusual = np.maximum(deviations[0], deviations[1]) > 4
    return _range(kind, np.where(is_unusual, np.maximum(rise[0], rise[1]), 0) - max(common, 0), first, end, scale)


def _range(kind: ChangeKind, db: NDArray[np.floating], first: int, end: int | None, scale: float) -> Change | None:
    """The two or more neighbouring third octaves with the most dB in all."""
    end = db.shape[0] if end is None else end
    best, start = (0.0, 0, 0), first
    for stop in range(first, end + 1):
        if stop < end and db[stop] >= _LEAST_DB:
            continue
        if stop - start >= 2 and float(db[start:stop].sum()) > best[0]:
            best = (float(db[start:stop].sum()), start, stop)
        start = stop + 1
    total, start, stop = best
    if total <= 0:
        return None
    edges_hz = third_octave_edges_hz()
    to_hz = None if stop == db.shape[0] else round(edges_hz[stop])
    mean_db = round(float(db[start:stop].mean()), 1)
    return Change(kind, total / scale, mean_db, from_hz=round(edges_hz[start]), to_hz=to_hz)


def _hz(place: int) -> float:
    return round(place * MODULATION_STEP_HZ, 1)
