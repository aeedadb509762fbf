"""Which bundle the machines are judged with: a folder, what was installed, or what a server offers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from asd_daemon.settings.notify import QuietText, Zone
from asd_daemon.settings.sections import Section
from asd_daemon.settings.text_formats import Name, Url

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_FORM = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_MOST_S = 90 * 86_400.0
_WORDS = "must be a time up to 90 days, such as 90m, 12h or 3d"


def duration_s(text: str) -> float:
    """Seconds of `30s`, `90m`, `12h`, `3d`, or `0s`.

    Raises:
        ValueError: it is none, or more than 90 days.
    """
    found = _FORM.fullmatch(text)
    seconds = float(found[1]) * _UNITS_S[found[2]] if found else _MOST_S + 1
    if seconds > _MOST_S:
        raise ValueError(_WORDS)
    return seconds


def _text(value: object) -> object:
    if not isinstance(value, str):  # in quotes it would be no time either
        raise ValueError(_WORDS)  # noqa: TRY004  # pydantic hears no TypeError
    return value


def _checked(text: str) -> str:
    duration_s(text)
    return text


def _at_least_a_second(text: str) -> str:
    if duration_s(text) < 1:
        raise ValueError("must be at least 1s")
    return text


def _folder_of_the_offer(url: str) -> str:
    try:
        port = urlsplit(url).port
    except ValueError as e:
        raise ValueError(f"must be a URL: {str(e)[:1].lower()}{str(e)[1:]}") from e
    if port == 0:
        raise ValueError("must be a URL: port 0 is none")
    if urlsplit(url).username is not None:
        raise ValueError("must be a URL without user and password: the offer is signed and nothing in it is secret")
    if "?" in url or "#" in url:
        raise ValueError("must be a URL without ? and #: names of files are put behind it")
    if url.rstrip("/").endswith("/rollout.json"):
        raise ValueError("must be the folder of rollout.json, without that name")
    return url


Duration = Annotated[str, BeforeValidator(_text), AfterValidator(_checked)]


class BundleSettings(Section):
    """`bundle: FOLDER` is understood too."""

    folder: Path | None = Field(
        None, description="folder with the models; unset: the bundle that was installed, else the program's own"
    )
    url: Annotated[Url, AfterValidator(_folder_of_the_offer)] | None = Field(
        None,
        description="where bundles are offered (`asd-fleet publish`), the folder of rollout.json; needs bundle_key; unset: bundles are"
        " installed by hand",
    )
    channel: Name = Field("stable", description="which of the channels that are offered there")
    ring: Name | None = Field(
        None, description="which of its rings this box belongs to, where its name does not say so; unset: the last one"
    )
    check: Annotated[Duration, AfterValidator(_at_least_a_second)] = Field(
        "1d",
        description="from one question to the next, somewhat more or less by chance; after a failure sooner: 30s, 90m, 12h, 3d",
    )
    window: QuietText | None = Field(
        None,
        description="when one may be installed, by the clock on the wall: 02:00-04:00, sat-sun 02:00-04:00; unset: at any time",
    )
    timezone: Zone | None = Field(None, description="of that window; unset: this box's own")
    trial: Duration = Field(
        "3d", description="so long a new bundle judges beside the present one before it is installed; 0s: not at all"
    )
    ca_file: Path | None = Field(None, description="certificates to trust; unset: those of the system")
    insecure: bool = Field(
        False,
        description="allow http://, where anybody on the way sees which bundle is fetched; signatures hold all the same",
    )

    @model_validator(mode="before")
    @classmethod
    def _folder_alone(cls, content: Any) -> Any:
        if isinstance(content, str) and "://" in content:
            raise ValueError(f"is a folder when it stands alone; write it as url: below bundle, got {content!r}")
        return {"folder": content} if isinstance(content, str | Path) else content

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.folder is not None and self.url is not None:
            raise ValueError("give folder or url, not both: what is offered is installed in the state folder")
        if self.url is not None and self.url.startswith("http://") and not self.insecure:
            raise ValueError(f"url: {self.url} is fetched with insecure: true only; give https://")
        return self

    @property
    def check_s(self) -> float:
        """Seconds from question to question."""
        return duration_s(self.check)

    @property
    def trial_s(self) -> float:
        """Seconds that a new bundle is tried for."""
        return duration_s(self.trial)
