"""Which microphones there are, and which of them is meant: by name, by USB identity or port, or the default.

Pure but for one look into /sys; it never loads PortAudio, which only the recorder process does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_CARD = re.compile(r"\(hw:(\d+),\d+\)")
_USB_ID = re.compile(r"usb-id:([0-9a-fA-F]{4}:[0-9a-fA-F]{4})(?::(\S+))?")
_USB_PATH = re.compile(r"usb-path:(\d+-\d+(?:\.\d+)*)")


class NoSuchDeviceError(ValueError):
    """No device, or more than one, answers to the name; the message lists those there are."""


@dataclass(frozen=True)
class Device:
    """One input device as PortAudio shows it."""

    index: int
    name: str
    channels: int
    """How many channels it can record."""
    rate_hz: float
    """The rate it prefers."""
    usb_id: str | None
    """vendor:product in hex where it is a USB device."""
    is_default: bool
    usb_serial: str | None = None
    """Its serial number, where it has one; many cheap microphones don't, or share one."""
    usb_path: str | None = None
    """The port it is plugged into, as the kernel counts them: 1-1.2."""
    card_id: str | None = None
    """ALSA's short name of the sound card."""

    @property
    def identity(self) -> str | None:
        """What stays the same when the same device is plugged in again; None where that can't be known (sound servers)."""
        if self.usb_id:
            return f"usb-id:{self.usb_id}" + (f":{self.usb_serial}" if self.usb_serial else "")
        return f"card:{self.card_id}" if self.card_id else None

    @property
    def is_hardware(self) -> bool:
        """Whether it is a sound card itself, not a plugin or sound server that would resample behind our back."""
        return _CARD.search(self.name) is not None


@dataclass(frozen=True)
class CardFacts:
    """What the kernel says of the sound card behind a device; each None where it does not say."""

    usb_id: str | None = None
    """vendor:product in hex."""
    usb_serial: str | None = None
    usb_path: str | None = None
    card_id: str | None = None


def card_facts(name: str, sysfs: Path = Path("/sys")) -> CardFacts:
    """The card behind a PortAudio name such as "Mic: USB Audio (hw:1,0)"; no facts for devices that are no card.

    /sys is read and not /proc/asound, which a service with ProcSubset=pid can't see.
    """
    card = _CARD.search(name)
    if card is None:
        return CardFacts()
    folder = sysfs / "class/sound" / f"card{card[1]}"
    card_id = _line(folder / "id")
    interface = (folder / "device").resolve()
    for device in (interface, interface.parent):
        vendor, product = _line(device / "idVendor"), _line(device / "idProduct")
        if vendor and product:
            serial = _line(device / "serial")
            return CardFacts(f"{vendor}:{product}", serial and "_".join(serial.split()), device.name, card_id)
    return CardFacts(card_id=card_id)


def _line(file: Path) -> str | None:
    """What a file of one line says; None where there is no such file, or nothing in it."""
    try:
        return file.read_text(errors="replace").strip() or None
    except OSError:
        return None


def find_device(wanted: str, devices: Sequence[Device]) -> Device:
    """The one device that is meant.

    `default`, `usb-id:VVVV:PPPP[:SERIAL]`, `usb-path:1-1.2`, an exact name, or a part of exactly one name.

    Raises:
        NoSuchDeviceError: none fits, or several.
    """
    usb, port = _USB_ID.fullmatch(wanted), _USB_PATH.fullmatch(wanted)
    if wanted == "default":
        fitting = [d for d in devices if d.is_default] or list(devices[:1])
    elif usb:
        fitting = [d for d in devices if d.usb_id and d.usb_id.lower() == usb[1].lower()]
        fitting = [d for d in fitting if usb[2] is None or d.usb_serial == usb[2]]
    elif port:
        fitting = [d for d in devices if d.usb_path == port[1]]
    else:
        fitting = [d for d in devices if d.name == wanted]
        fitting = fitting or [d for d in devices if wanted.lower() in d.name.lower()]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(f"{d.name!r} (usb-path:{d.usb_path})" if d.usb_path else repr(d.name) for d in fitting)
        how = "give the serial number or usb-path" if usb else "give the whole name"
        raise NoSuchDeviceError(f"microphone {wanted!r} is ambiguous: it fits {names}; {how}")
    if not devices:
        raise NoSuchDeviceError(
            f"no microphone {wanted!r}: this box has no sound input at all; plug one in, or give another --source"
        )
    names = ", ".join(repr(d.name) for d in devices)
    raise NoSuchDeviceError(f"no microphone {wanted!r}: there are {names}; `asd-daemon devices` lists them")
