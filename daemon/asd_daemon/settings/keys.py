"""The configuration: what can be set, with a unit, a bound and a sentence for every key.

One `Settings` is made at the door and passed down. Unknown keys are refused. The file that it is read from is file.py's.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from asd_daemon.errors import SettingsError
from asd_daemon.judge.scoring.scoring_choice import Scoring
from asd_daemon.settings.broker_words import Hosts, spread_host
from asd_daemon.settings.bundle import BundleSettings
from asd_daemon.settings.keep import KeepSettings
from asd_daemon.settings.notify import MachineNotifySettings, NotifySettings
from asd_daemon.settings.sections import Section, SourceSettings
from asd_daemon.settings.text_formats import Credential, Name, Topic, Url, Words


def _hostname() -> str:
    """The host name without its domain, in letters that topics may have."""
    name = "".join(
        c if (c.isalnum() and c.isascii()) or c in "_.-" else "-" for c in socket.gethostname().split(".")[0]
    )
    return name.lstrip("-._")[:64] or "node"


class AlarmSettings(Section):
    """When an alert opens and closes."""

    open_after: int = Field(2, ge=1, le=1000, description="so many anomalous windows …")
    of: int = Field(3, ge=1, le=1000, description="… among the last so many usable ones open an alert")
    close_after: int = Field(6, ge=1, le=1000, description="so many normal windows in a row close it")
    update_every_s: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="an open alert is told anew at most this often, in seconds, when its peak rises",
    )
    hysteresis: float = Field(
        0.05, ge=0, lt=1, description="an open alert closes on scores that lie this fraction below the threshold"
    )
    cool_down_s: float = Field(60.0, ge=0, le=604_800, description="after a close no alert opens for so many seconds")
    relapse_s: float = Field(
        86_400.0,
        ge=0,
        le=604_800,
        description="an alert that comes back within so many seconds needs twice the quiet to close, up to 360 windows",
    )
    false_alarms_per_week: float = Field(
        1.0, gt=0, le=10_000, description="how many alerts a week a healthy machine may cause; sets the threshold"
    )
    threshold_learning: bool = Field(
        True, description="learn the threshold from what is heard; false: the provisional one of enrolment stays"
    )
    threshold: float | None = Field(
        None, ge=0, le=1e9, description="a threshold of your own, which nothing moves; unset: as the two keys above say"
    )

    @model_validator(mode="after")
    def _k_of_n(self) -> Self:
        if self.open_after > self.of:
            raise ValueError(f"open_after ({self.open_after}) must not be more than of ({self.of})")
        return self


class QualitySettings(Section):
    """When a window is not judged, beyond silence, gaps, clipping and the like."""

    below_db: float = Field(
        20.0, ge=3, le=200, description="so many dB below the machine's usual level it is off, and is not judged"
    )
    above_db: float = Field(
        40.0, ge=3, le=200, description="so many dB above it; wide, since machines that fail are louder too"
    )
    off_below_dbfs: float | None = Field(
        None, ge=-120, le=0, description="up to this level in dBFS the machine is off; unset: as it was learned"
    )
    deaf_after_s: float = Field(
        600.0, ge=10, le=604_800, description="so many seconds without a usable window are an event of their own"
    )


class MachineSettings(Section):
    """One machine that is listened to."""

    source: SourceSettings = Field(
        default_factory=lambda: SourceSettings(device="default"), description="where its sound comes from"
    )
    title: Words | None = Field(None, description="what people call it; unset: its name")
    model: Name | None = Field(None, description="its name in the bundle; unset: the name it has here")
    hop_s: float = Field(
        10.0, ge=0.5, le=10, description="seconds from the start of one window of 10 s to the start of the next"
    )
    alarm: AlarmSettings = Field(default_factory=AlarmSettings, description="when an alert opens and closes")
    quality: QualitySettings = Field(default_factory=QualitySettings, description="when a window is fit to judge")
    scoring: Scoring | None = Field(None, description="by what it is judged, auto or paper; unset: as for all")
    notify: MachineNotifySettings = Field(
        default_factory=MachineNotifySettings, description="who is told what of it, where that is not as for all"
    )


class HealthSettings(Section):
    """How the daemon itself is watched."""

    metrics_port: int | None = Field(
        None, ge=1, le=65_535, description="TCP port for Prometheus at /metrics; unset: none is opened"
    )
    metrics_host: str = Field(
        "127.0.0.1", min_length=1, description="address to answer on; 0.0.0.0 for all networks of this box"
    )
    ping_url: Url | None = Field(
        None, description="a URL that is asked for while every machine is judged; when it stays out, raise alarm there"
    )
    ping_every_s: float = Field(
        60.0, ge=1, le=86_400, description="seconds from ping to ping; windows come every 10 s, so 30 or more"
    )


class WebSettings(Section):
    """The page for people, `asd-daemon web`; a running daemon does not look at it."""

    host: str = Field(
        "127.0.0.1", min_length=1, description="address to answer on; 0.0.0.0 for all networks of this box"
    )
    port: int = Field(8470, ge=1, le=65_535, description="TCP port")
    hosts: tuple[str, ...] = Field(
        (), description="names by which browsers ask for the page, besides localhost and addresses: [line-3.local]"
    )
    password_file: Path | None = Field(
        None, description="file with hashes of passwords, written by `asd-daemon web --set-login operator`"
    )
    proxy_header: str | None = Field(
        None, min_length=1, description="header in which a reverse proxy names who has logged in there"
    )
    proxy_address: str = Field(
        "127.0.0.1", min_length=1, description="address of that proxy; from others the header is not believed"
    )
    session_hours: float = Field(12.0, gt=0, le=8784, description="hours after which one must log in again")


class MqttSettings(Section):
    """The MQTT broker."""

    host: Hosts = Field(description="name or address of the broker, or mqtt://NAME:PORT; a list of a cluster's nodes")
    port: int | None = Field(None, ge=1, le=65_535, description="TCP port; unset: 8883 with TLS, 1883 without")
    tls: bool = Field(False, description="encrypt, and check the broker's certificate")
    ca_file: Path | None = Field(None, description="certificates to trust; unset: those of the system")
    cert_file: Path | None = Field(None, description="our own certificate, where the broker wants one")
    key_file: Path | None = Field(None, description="its private key")
    username: str | None = Field(None, min_length=1, description="name to log in with")
    password_file: Path | None = Field(None, description="file whose first line is the password")
    password_credential: Credential | None = Field(
        None, description="or the name of a file in /etc/asd-daemon, mode 0600, that systemd hands over as a credential"
    )
    prefix: Topic = Field("asd", description="first part of all topics")
    discovery_prefix: Topic | None = Field(
        "homeassistant", description="first part of Home Assistant's discovery topics; null: it is told nothing"
    )
    pictures: bool = Field(
        True, description="publish a picture of an alert's sound on …/picture, which Home Assistant shows"
    )
    commands: bool = Field(
        False,
        description="accept mute, unmute and acknowledge on …/command; whoever may publish there can silence alerts",
    )
    enrolment: bool = Field(
        False,
        description="accept the command enroll too; whoever may publish it can change what counts as normal",
    )
    settings: bool = Field(
        False,
        description="accept the commands set and unset too; whoever may publish them can move limits and have other microphones heard",
    )
    keepalive_s: int = Field(
        15, ge=5, le=3600, description="seconds between signs of life; a silent broker is noticed after 1.5 of them"
    )

    @model_validator(mode="before")
    @classmethod
    def _host_with_more(cls, content: Any) -> Any:
        """What a host says of port and TLS goes to those keys, where they are not given."""
        return spread_host(content) if isinstance(content, dict) else content

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if not self.tls and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError("ca_file, cert_file and key_file have a meaning with tls: true only")
        if self.cert_file is None and self.key_file is not None:
            raise ValueError("key_file needs cert_file")
        for key in ("enrolment", "settings"):
            if getattr(self, key) and not self.commands:
                raise ValueError(f"{key} needs commands: true")
        if self.password_file is not None and self.password_credential is not None:
            raise ValueError(
                "give password_file or password_credential, not both; each needs one place for the password"
            )
        if self.password_file is not None and self.username is None:
            raise ValueError("password_file needs username")
        if self.password_credential is not None and self.username is None:
            raise ValueError("password_credential needs username")
        return self

    @property
    def hosts(self) -> tuple[str, ...]:
        """All names."""
        return (self.host,) if isinstance(self.host, str) else self.host

    @property
    def effective_port(self) -> int:
        """The port to connect to."""
        return self.port or (8883 if self.tls else 1883)


class Settings(Section):
    """Everything that can be set."""

    node: Name = Field(default_factory=_hostname, description="this box's name in all topics; unset: its host name")
    machines: dict[Name, MachineSettings] = Field(
        default_factory=dict, description="the machines that are listened to, by name"
    )
    scoring: Scoring = Field(
        "auto",
        description="auto: by what evidence has chosen for the machine; paper: by the nearest neighbour of its embeddings alone",
    )
    bundle: BundleSettings = Field(
        default_factory=BundleSettings,
        description="which bundle judges: a folder, what was installed, or what a server offers",
    )
    bundle_key: Path | None = Field(
        None, description="Ed25519 public key (PEM) that must have signed the bundle; unset: no signature is asked for"
    )
    mqtt: MqttSettings | None = Field(None, description="the MQTT broker; unset: events are printed as JSON lines")
    notify: NotifySettings | None = Field(
        None, description="messages to people by mail, chat or push (pip install 'asd-edge[notify]'); unset: none"
    )
    keep: KeepSettings = Field(default_factory=KeepSettings, description="what is kept on disk, in the state folder")
    health: HealthSettings = Field(default_factory=HealthSettings, description="how the daemon itself is watched")
    web: WebSettings = Field(default_factory=WebSettings, description="the page for people, `asd-daemon web`")
    log: Literal["text", "json"] = Field("text", description="form of the log on standard error")

    @model_validator(mode="after")
    def _what_is_fetched_is_signed(self) -> Self:
        if self.bundle.url is not None and self.bundle_key is None:
            raise ValueError("bundle.url needs bundle_key: what comes over a network must be signed")
        return self

    def machine(self, name: str, where: str = "the configuration") -> MachineSettings:
        """One machine's settings.

        Raises:
            SettingsError: there is no such machine; lists those there are.
        """
        if name not in self.machines:
            known = ", ".join(self.machines) or "none"
            raise SettingsError(f"{where}: machine {name!r} is unknown; machines: {known} (or give --source)")
        return self.machines[name]
