"""What every section of the configuration has in common, and where the sound of a machine comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from asd_daemon.errors import UsageError
from asd_daemon.hear.source_spec import KINDS, SourceSpec, parse_source


class Section(BaseModel):
    """Unknown keys are refused; nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, content: Any) -> Any:
        """A section whose keys are all commented out is one without keys, not a wrong value."""
        return {} if content is None else content


class SourceSettings(Section):
    """Where the sound of a machine comes from: exactly one of device, file, folder, command and simulate."""

    device: str | None = Field(
        None,
        min_length=1,
        description="microphone: a name or a part of one, default, usb-id:VVVV:PPPP[:SERIAL], or usb-path:1-1.2 for a port",
    )
    file: Path | None = Field(None, description="one recording, played once")
    folder: Path | None = Field(None, description="every recording below a folder, in the order of their paths")
    command: str | None = Field(
        None, min_length=1, description="a program that writes raw s16le mono sound at 16 kHz to its standard output"
    )
    simulate: str | None = Field(
        None, min_length=1, description="a simulated machine, for trying out: fan, or fan?fail=blade_chip&fail_after=60"
    )
    channel: int | None = Field(
        None, ge=0, le=63, description="which channel of device, file or folder to hear, counted from 0; never averaged"
    )
    far: int | None = Field(
        None,
        ge=0,
        le=63,
        description="channel of a second microphone, far from the machine, that hears the hall; source: {near: {…}, far: {…}} is"
        " understood too",
    )
    far_device: str | None = Field(
        None, min_length=1, description="device of that microphone, where it is not the same one"
    )
    rate_hz: float | None = Field(
        None, ge=4000, le=384_000, description="rate in Hz to open a device at; unset: what suits the device"
    )
    speed: float | None = Field(
        None,
        ge=0,
        le=10_000,
        description="so many times faster than real time a command speaks, 0: as it likes; for rehearsals; unset: 1",
    )

    @model_validator(mode="before")
    @classmethod
    def _two_microphones(cls, content: Any) -> Any:
        """A source of `near` and `far` is the near one, with the far one's channel."""
        return _near_with_far(content) if isinstance(content, dict) and "near" in content else content

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}; got {', '.join(given) or 'none'}")
        if self.channel is not None and given[0] in ("command", "simulate"):
            raise ValueError(f"channel has no meaning for {given[0]}")
        if self.far is not None and given[0] in ("command", "simulate"):
            more = "; write simulate: fan?far=1" if given[0] == "simulate" else ""
            raise ValueError(f"far has no meaning for {given[0]}{more}")
        if self.far_device is not None and given[0] != "device":
            raise ValueError(f"far_device has no meaning for {given[0]}")
        if self.rate_hz is not None and given[0] != "device":
            raise ValueError(f"rate_hz has no meaning for {given[0]}")
        if self.speed is not None and given[0] != "command":
            raise ValueError(f"speed has no meaning for {given[0]}")
        try:
            self.spec().channel("far")
            self.spec().far_device  # noqa: B018  # is refused here, if it is
        except UsageError as e:  # it knows no file; here it becomes one of the file's mistakes
            raise ValueError(str(e)) from e
        return self

    def spec(self) -> SourceSpec:
        """The same as the rest of the program knows it.

        Raises:
            UsageError: simulate has options that can't be read.
        """
        if self.simulate is not None:
            return parse_source(f"simulate:{self.simulate}")
        kind = next(k for k in KINDS if getattr(self, k) is not None)
        options = {
            "channel": self.channel,
            "far": self.far,
            "far_device": self.far_device,
            "rate_hz": self.rate_hz,
            "speed": self.speed,
        }
        return SourceSpec(kind, str(getattr(self, kind)), {k: str(v) for k, v in options.items() if v is not None})


def _near_with_far(content: dict[str, Any]) -> dict[str, Any]:
    """{near: {…}, far: {…}} as one source with a second channel.

    Raises:
        ValueError: they are neither two devices nor channels of one device, file or folder.
    """
    near, far = content["near"], content.get("far")
    if set(content) - {"near", "far"} or not isinstance(near, dict) or not isinstance(far, dict):
        raise ValueError("near and far must be sources of their own and stand alone: {near: {…}, far: {…}}")
    others = {key: value for key, value in far.items() if key != "channel"}
    channel = {"far": far.get("channel", 0)}
    if others == {key: value for key, value in near.items() if key != "channel"}:
        return {**near, **channel}
    if "device" in near and set(others) == {"device"}:
        return {**near, **channel, "far_device": far["device"]}
    raise ValueError(
        f"near and far must be two devices, or channels of one device, file or folder; got {_words(near)} and {_words(far)}"
    )


def _words(source: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in source.items()) or "nothing"
