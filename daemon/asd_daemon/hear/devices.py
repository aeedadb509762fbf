"""Which microphones there are, and which of them is meant: by name, by USB identity, or the default.

Pure but for one look into /sys; it never loads PortAudio, which only the recorder process does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_CARD = re.compile(r"\(hw:(\d+),\d+\)")
_USB_ID = re.compile(r"usb-id:([0-9a-fA-F]{4}):([0-9a-fA-F]{4})")


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

    @property
    def is_hardware(self) -> bool:
        """Whether it is a sound card itself, not a plugin or sound server that would resample behind our back."""
        return _CARD.search(self.name) is not None


def usb_id_of(name: str, sysfs: Path = Path("/sys")) -> str | None:
    """vendor:product of the USB device behind a PortAudio name such as "Mic: USB Audio (hw:1,0)"; None for others.

    /sys is read and not /proc/asound, which a service with ProcSubset=pid can't see.
    """
    card = _CARD.search(name)
    if card is None:
        return None
    interface = (sysfs / "class/sound" / f"card{card[1]}" / "device").resolve()
    for folder in (interface, interface.parent):
        try:
            vendor, product = (folder / "idVendor").read_text().strip(), (folder / "idProduct").read_text().strip()
        except OSError:
            continue
        return f"{vendor}:{product}"
    return None


def find_device(wanted: str, devices: Sequence[Device]) -> Device:
    """The one device that is meant: `default`, `usb-id:VVVV:PPPP`, an exact name, or a part of exactly one name.

    Raises:
        NoSuchDeviceError: none fits, or several.
    """
    usb = _USB_ID.fullmatch(wanted)
    if wanted == "default":
        fitting = [d for d in devices if d.is_default] or list(devices[:1])
    elif usb:
        fitting = [d for d in devices if d.usb_id and d.usb_id.lower() == f"{usb[1]}:{usb[2]}".lower()]
    else:
        fitting = [d for d in devices if d.name == wanted]
        fitting = fitting or [d for d in devices if wanted.lower() in d.name.lower()]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(repr(d.name) for d in fitting)
        raise NoSuchDeviceError(f"microphone {wanted!r} is ambiguous: it fits {names}; give the whole name")
    if not devices:
        raise NoSuchDeviceError(f"no microphone {wanted!r}: this box has no sound input at all")
    names = ", ".join(repr(d.name) for d in devices)
    raise NoSuchDeviceError(f"no microphone {wanted!r}: there are {names}")
