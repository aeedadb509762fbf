"""Who is told of alerts by mail, chat or push, and when: for all machines, and what is different for one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from asd_daemon.settings.sections import Section
from asd_daemon.settings.text_formats import Credential, Url
from asd_daemon.tell.notifications.quiet_hours import parse_quiet_time
from asd_daemon.tell.notifications.recipients import checked_tag

Happening = Literal["open", "update", "close", "deaf", "drift"]


def _checked_quiet(text: str) -> str:
    parse_quiet_time(text)
    return text


def _checked_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:
        raise ValueError("is no time zone that this box knows; such as Europe/Berlin") from e
    return name


Tag = Annotated[str, AfterValidator(checked_tag)]
QuietText = Annotated[str, AfterValidator(_checked_quiet)]
Zone = Annotated[str, AfterValidator(_checked_zone)]


class MachineNotifySettings(Section):
    """What is different for one machine; what is not set is as for all."""

    tell: tuple[Tag, ...] | None = Field(None, description="tags of those who are told; [] for all")
    events: tuple[Happening, ...] | None = Field(None, description="what is told")
    quiet_hours: tuple[QuietText, ...] | None = Field(None, description="when it is not")
    escalate_after_min: float | None = Field(
        None, gt=0, le=10_080, description="minutes until others are told of an alert that nobody has answered"
    )
    escalate_to: tuple[Tag, ...] | None = Field(None, description="their tags")


class NotifySettings(Section):
    """Messages to people, by apprise: mail, ntfy, Telegram, Teams, webhooks and a hundred more."""

    urls_file: Path | None = Field(
        None,
        description="file with the addresses, one a line, with tags before it: ops, boss = mailto://…; nobody but us may read it",
    )
    urls_credential: Credential | None = Field(
        None, description="or the name of a file in /etc/asd-daemon, mode 0600, that systemd hands over as a credential"
    )
    tell: tuple[Tag, ...] = Field((), description="tags of those who are told; [] for all of the file")
    events: tuple[Happening, ...] = Field(
        ("open", "close", "deaf"),
        description="what is told: open, update, close of alerts; deaf: a machine is not heard, and heard again; drift",
    )
    quiet_hours: tuple[QuietText, ...] = Field(
        (),
        description='when messages wait until the end of it: ["22:00-06:00", "sat-sun", "mon-fri 18:00-07:00"]',
    )
    quiet_passes: tuple[Literal["open", "update", "close", "deaf", "drift", "escalation"], ...] = Field(
        ("escalation",), description="what is told in quiet hours too"
    )
    timezone: Zone | None = Field(None, description="of quiet hours and of times in messages; unset: this box's own")
    escalate_after_min: float | None = Field(
        None,
        gt=0,
        le=10_080,
        description="minutes until others are told of an alert that nobody has acknowledged, muted or closed; unset: never",
    )
    escalate_to: tuple[Tag, ...] = Field((), description="their tags")
    storm_s: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="seconds that a message waits for others, so that a storm of alerts is one message",
    )
    most_per_hour: int = Field(
        20, ge=1, le=3600, description="messages to one recipient within an hour; then they are gathered into one"
    )
    deaf_after_s: float = Field(
        60.0, ge=0, le=604_800, description="a machine that has not been heard for so many seconds is told as deaf"
    )
    keep_hours: float = Field(48.0, gt=0, le=8784, description="hours after which what could not be told is given up")
    page_url: Url | None = Field(
        None, description="address of the page (asd-daemon web) as people reach it; messages link to the alert there"
    )
    pictures: bool = Field(True, description="attach a picture of the sound, beside a normal one")

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if (self.urls_file is None) == (self.urls_credential is None):
            raise ValueError("notify needs urls_file or urls_credential, and not both")
        if self.escalate_after_min is not None and not self.escalate_to:
            raise ValueError("escalate_after_min needs escalate_to: the tags of those who are told then")
        return self
