"""Prometheus metrics over HTTP, for this box alone unless told otherwise; nothing of it is imported where it is not asked for.

Owns the names of the metrics. Counters are read when they are asked for: at rest it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from asd_daemon.errors import CannotStartError
from asd_daemon.judge.thresholds.threshold import Threshold
from asd_daemon.tell.payloads import Condition
from asd_daemon.watch.report import DeliveryReport, DeliveryReports, MachineReport, Reports
from asd_daemon.waveform import SAMPLE_RATE_HZ


def _score_now(report: MachineReport) -> float | None:
    """The last window's score; None where later ones could not be judged."""
    is_judged = report.state.condition not in (Condition.UNUSABLE, Condition.STARTING, Condition.OFF)
    return report.state.score if report.state.listening and is_judged else None


_COUNTERS = {
    "asd_windows_heard": ("Windows of 10 s that were heard", lambda r: r.counts.heard),
    "asd_windows_scored": ("Windows that were scored", lambda r: r.counts.scored),
    "asd_windows_unusable": ("Windows that were not fit to judge", lambda r: r.counts.unusable),
    "asd_windows_off": ("Windows in which the machine was switched off", lambda r: r.counts.off),
    "asd_windows_dropped": ("Windows that came faster than they could be judged", lambda r: r.counts.dropped),
    "asd_recordings_refused": ("Recordings that could not be read", lambda r: r.counts.refused),
    "asd_gaps": ("Times that sound was missing", lambda r: r.counts.gaps),
    "asd_gap_seconds": ("Sound that was missing", lambda r: r.counts.gap_samples / SAMPLE_RATE_HZ),
    "asd_source_losses": ("Times that the source fell silent against its will", lambda r: r.counts.losses),
    "asd_source_restarts": ("Times that the source was started again", lambda r: r.source_health.restarts),
    "asd_source_overruns": ("Times that the device dropped samples", lambda r: r.source_health.overruns),
    "asd_deaf": ("Times that nothing usable was heard for too long", lambda r: r.counts.deaf),
    "asd_alerts": ("Alerts that were opened", lambda r: r.counts.opened),
}


def _calibrated(threshold: Threshold | None) -> int | None:
    return None if threshold is None or threshold.state == "fixed" else int(threshold.state == "calibrated")


_GAUGES = {
    "asd_listening": ("1 while the machine is heard", lambda r: int(r.state.listening)),
    "asd_score": ("Anomaly score of the last window; absent while nothing is judged", _score_now),
    "asd_threshold": ("Score above which a window is anomalous", lambda r: r.state.threshold),
    "asd_threshold_calibrated": (
        "1 where the threshold was learned from a week and more of listening, 0 where it is provisional; none where it is fixed",
        lambda r: _calibrated(r.state.calibration),
    ),
    "asd_threshold_windows": (
        "Windows that the threshold was learned from",
        lambda r: r.state.calibration.windows if r.state.calibration else None,
    ),
    "asd_threshold_wanted": (
        "The threshold that the scores ask for; another one than asd_threshold where that is held back",
        lambda r: r.state.calibration.wanted if r.state.calibration else None,
    ),
    "asd_alert_open": ("1 while an alert is open", lambda r: int(r.state.event_id is not None)),
    "asd_level_drift": (
        "How far normal scores have drifted towards the threshold, 0 to 1; 0 where they have not",
        lambda r: r.state.drift.fraction if r.state.drift else 0.0,
    ),
    "asd_source_drift_ppm": ("Samples' clock against this box's, in millionths", lambda r: r.source_health.drift_ppm),
    "asd_state_since_seconds": ("Unix time from which the state holds", lambda r: r.state.since.timestamp()),
}


_DELIVERY_COUNTERS: dict[str, tuple[str, Callable[[DeliveryReport], int]]] = {
    "asd_broker_connects": ("Times that the broker has accepted us", lambda t: t.broker_status.connects),
    "asd_commands_refused": ("Commands by MQTT that made no sense", lambda t: t.broker_status.refused_commands),
    "asd_alerts_refused": ("Times that the broker has refused an alert", lambda t: t.broker_status.refused_alerts),
    "asd_alerts_given_up": (
        "Messages dropped because too many waited for the broker",
        lambda t: t.store_report.alerts_given_up,
    ),
    "asd_notices_given_up": (
        "What people could not be told in time, or was too much",
        lambda t: t.notifications.given_up,
    ),
    "asd_clips_written": ("Clips of sound that were kept", lambda t: t.store_report.clips_written),
    "asd_clips_failed": ("Clips of sound that could not be kept", lambda t: t.store_report.clips_failed),
    "asd_scores_given_up": ("Scores that could not be kept", lambda t: t.store_report.scores_given_up),
}
_DELIVERY_GAUGES: dict[str, tuple[str, Callable[[DeliveryReport], int]]] = {
    "asd_alerts_waiting": ("Messages that the broker has not confirmed", lambda t: t.store_report.alerts_waiting),
    "asd_broker_troubles": (
        "What the broker does not take, and other troubles with it, at present",
        lambda t: len(t.broker_status.troubles),
    ),
}


class MachineCollector(Collector):
    """Makes metrics of the reports: of machines, each labelled with its name, of broker, of stores."""

    def __init__(self, reports: Reports, delivery_report: DeliveryReports = DeliveryReport) -> None:
        self._reports, self._delivery_report = reports, delivery_report

    def collect(self) -> Iterator[Metric]:
        """All of them, as they stand."""
        reports = self._reports()
        for name, (sentence, value_of) in _COUNTERS.items():
            yield _filled(CounterMetricFamily(name, sentence, labels=["machine"]), reports, value_of)
        for name, (sentence, value_of) in _GAUGES.items():
            yield _filled(GaugeMetricFamily(name, sentence, labels=["machine"]), reports, value_of)
        states = GaugeMetricFamily("asd_state", "1 for the state that a machine is in", labels=["machine", "state"])
        for machine, report in reports.items():
            for condition in Condition:
                states.add_metric([machine, condition.value], int(report.state.condition is condition))
        yield states
        delivery = self._delivery_report()
        if delivery.broker_status.broker is not None:
            yield GaugeMetricFamily(
                "asd_broker_connected",
                "1 while the broker has accepted us",
                value=int(delivery.broker_status.connected),
            )
        yield from _of_recipients(delivery)
        for name, (sentence, count_of) in _DELIVERY_COUNTERS.items():
            yield CounterMetricFamily(name, sentence, value=count_of(delivery))
        for name, (sentence, count_of) in _DELIVERY_GAUGES.items():
            yield GaugeMetricFamily(name, sentence, value=count_of(delivery))


def _of_recipients(delivery: DeliveryReport) -> Iterator[Metric]:
    told = CounterMetricFamily("asd_messages_told", "Messages that a recipient has got", labels=["recipient"])
    failing = GaugeMetricFamily(
        "asd_recipient_failures", "Tries in a row that failed; 0 where the last did not", labels=["recipient"]
    )
    waiting = GaugeMetricFamily("asd_notices_waiting", "What a recipient must still be told", labels=["recipient"])
    for recipient in delivery.notifications.recipients:
        told.add_metric([recipient.name], recipient.told)
        failing.add_metric([recipient.name], recipient.failures)
        waiting.add_metric([recipient.name], recipient.waiting)
    yield from (told, failing, waiting)


def _filled(family: Any, reports: Any, value_of: Any) -> Metric:
    report: MachineReport
    for machine, report in reports.items():
        value = value_of(report)
        if value is not None:
            family.add_metric([machine], value)
    metric: Metric = family
    return metric


class MetricsServer:
    """Answers http://HOST:PORT/metrics."""

    def __init__(self, host: str, port: int, delivery_report: DeliveryReports = DeliveryReport) -> None:
        self._host, self._port, self._delivery_report = host, port, delivery_report
        self._server: Any = None

    @property
    def port(self) -> int:
        """The port it answers on."""
        return int(self._server.server_port) if self._server else self._port

    def start(self, reports: Reports) -> None:
        """Begin to answer.

        Raises:
            CannotStartError: the address is taken or not ours.
        """
        registry = CollectorRegistry()
        registry.register(MachineCollector(reports, self._delivery_report))
        ProcessCollector(registry=registry)  # memory and descriptors, from /proc
        try:
            self._server, self._thread = start_http_server(self._port, addr=self._host, registry=registry)
        except OSError as e:
            raise CannotStartError(
                f"health.metrics_port: {self._host}:{self._port} can't be used: {e.strerror or e}; choose another port"
            ) from e

    def progressed(self) -> None:
        """Whoever asks reads the counters."""

    def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(1.0)
