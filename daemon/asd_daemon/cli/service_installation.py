"""What `asd-daemon service install` writes into a system: the unit, the udev rules and a first configuration; and takes away again.

Owns the paths and what is changed in the templates of deploy/. It starts nothing and never touches a configuration that is there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from asd_daemon.cli.service_limits import with_limits
from asd_daemon.cli.service_visibility import check_visibility
from asd_daemon.errors import CannotStartError, UsageError
from asd_daemon.settings.file import SYSTEM_FILE, load_settings
from asd_daemon.settings.keys import Settings
from asd_daemon.settings.sample import sample_text

UNIT = Path("/etc/systemd/system/asd-daemon@.service")
WHOLE_UNIT = Path("/etc/systemd/system/asd-daemon.service")
PAGE_UNIT = Path("/etc/systemd/system/asd-daemon-web.service")
RULES = Path("/etc/udev/rules.d/90-asd-daemon.rules")
_TEMPLATE_PROGRAM = "/opt/asd-edge/bin/asd-daemon"
_CREDENTIAL = "#LoadCredential=mqtt-password:/etc/asd-daemon/mqtt-password"
_USB_ID = re.compile(r"usb-id:([0-9a-fA-F]{4}):([0-9a-fA-F]{4})(?::(\S+))?")
_USB_PATH = re.compile(r"usb-path:(\S+)")


@dataclass(frozen=True)
class Change:
    """One file, and what became of it."""

    path: Path
    what: str
    """written, updated, kept, removed or missing."""


def own_program() -> Path:
    """The program as it was called, as the unit must call it."""
    return Path(sys.argv[0]).resolve()


def install(prefix: Path, program: Path) -> Iterator[Change]:
    """Write what a system needs below a prefix, `/` for this one; each file as it is done.

    Raises:
        UsageError: the service could not see the program, or what it needs, where it is.
        SettingsError: the configuration that is there is wrong.
        CannotStartError: a file can't be written.
    """
    if prefix == Path("/"):  # what lies in an image can't be followed from here
        check_visibility(program)
    configuration = _below(prefix, SYSTEM_FILE)
    if configuration.exists():
        yield Change(configuration, "kept")
    else:
        yield _write(configuration, sample_text())
    settings = load_settings(configuration)
    unit = with_credential(template("asd-daemon@.service").replace(_TEMPLATE_PROGRAM, quoted(program)), settings)
    yield _write(_below(prefix, UNIT), unit)
    yield _write(_below(prefix, WHOLE_UNIT), with_limits(whole_unit(unit), settings.machines))
    page_unit = template("asd-daemon-web.service").replace(_TEMPLATE_PROGRAM, quoted(program))
    yield _write(_below(prefix, PAGE_UNIT), page_unit)
    rules = template("90-asd-daemon.rules") + udev_rules(settings)
    yield _write(_below(prefix, RULES), rules)


def uninstall(prefix: Path) -> Iterator[Change]:
    """Take away what `install` wrote; configuration and state stay.

    Raises:
        CannotStartError: a file can't be removed.
    """
    for path in (UNIT, WHOLE_UNIT, PAGE_UNIT, RULES):
        file = _below(prefix, path)
        try:
            file.unlink()
        except FileNotFoundError:
            yield Change(file, "missing")
        except OSError as e:
            raise CannotStartError(f"{file}: can't be removed: {e.strerror}; are you root?") from e
        else:
            yield Change(file, "removed")


def whole_unit(template_unit: str) -> str:
    """The same unit for all configured machines in one process, as channels of one microphone need it."""
    head = (
        "# All machines of /etc/asd-daemon/asd-daemon.yaml in one process: for machines that share a microphone.\n"
        "# It is this one or asd-daemon@MACHINE, never both.\n"
    )
    body = template_unit[template_unit.index("[Unit]") :]
    changed = (
        body.replace(" --machine %i", "")
        .replace("the machine %i", "all machines")
        .replace("machine %i", "all machines")
        .replace("/%i", "/all")
    )
    return head + changed


def quoted(program: Path) -> str:
    """A program as `ExecStart=` reads it back.

    Raises:
        UsageError: systemd calls no program of such a path.
    """
    text = str(program)
    if wrong := re.search(r"""["'\\\x00-\x1f]""", text):
        raise UsageError(f"{program}: systemd calls no program with {wrong[0]!r} in its path; install it elsewhere")
    text = text.replace("%", "%%")
    return text if re.fullmatch(r"[A-Za-z0-9/._@:+,=%-]+", text) else f'"{text}"'


def with_credential(unit: str, settings: Settings) -> str:
    """The unit with the secrets that the configuration names, which the service's user could not read by itself."""
    named = [settings.mqtt.password_credential if settings.mqtt else None]
    named.append(settings.notify.urls_credential if settings.notify else None)
    lines = [f"LoadCredential={name}:{SYSTEM_FILE.parent}/{name}" for name in dict.fromkeys(named) if name]
    return unit.replace(_CREDENTIAL, "\n".join(lines), 1) if lines else unit


def udev_rules(settings: Settings) -> str:
    """A line for each machine whose microphone is told by its USB identity or port: its card gets the machine's name."""
    lines = []
    for name, machine in settings.machines.items():
        device = machine.source.device or ""
        identity, port = _USB_ID.fullmatch(device), _USB_PATH.fullmatch(device)
        if identity:
            serial = f', ATTRS{{serial}}=="{_pattern(identity[3])}"' if identity[3] else ""
            which = f'ATTRS{{idVendor}}=="{identity[1].lower()}", ATTRS{{idProduct}}=="{identity[2].lower()}"{serial}'
        elif port:
            which = f'KERNELS=="{_pattern(port[1])}"'
        else:
            continue
        card = re.sub(r"[^A-Za-z0-9_]", "_", name)[:15]  # ALSA's ids are no longer
        lines.append(f'SUBSYSTEM=="sound", KERNEL=="card*", SUBSYSTEMS=="usb", {which}, ATTR{{id}}="{card}"\n')
    return ("\n# Sound cards named after their machines\n" + "".join(lines)) if lines else ""


def _pattern(text: str) -> str:
    """A text as udev matches it: `?` stands for what would be a quotation mark or a wild card there."""
    return re.sub(r"[^A-Za-z0-9_.:-]", "?", text)


def next_commands(machines: Mapping[str, object], asked: tuple[str, ...]) -> list[str]:
    """What to do after installing, in order."""
    names = asked or tuple(machines) or ("MACHINE",)
    units = " ".join(f"asd-daemon@{name}" for name in names)
    return [
        f"edit {SYSTEM_FILE}, then: asd-daemon check",
        "sudo udevadm control --reload && sudo udevadm trigger --subsystem-match=sound",
        "sudo systemctl daemon-reload",
        f"sudo systemctl enable --now {units}",
        "journalctl -f -u 'asd-daemon*' (or: sudo asd-daemon status)",
    ]


def template(name: str) -> str:
    """A file of deploy/: inside the package where it was installed, beside it in a checkout."""
    here = Path(__file__).resolve()
    for folder in (here.parents[1] / "deploy", here.parents[3] / "deploy"):
        file = folder / name
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise CannotStartError(f"{name} is missing beside {here.parent}: this installation is not whole")


def _below(prefix: Path, path: Path) -> Path:
    return prefix / path.relative_to("/")


def _write(file: Path, text: str) -> Change:
    what = "updated" if file.exists() else "written"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(0o644)
    except OSError as e:
        raise CannotStartError(f"{file}: can't be written: {e.strerror}; are you root?") from e
    return Change(file, what)
