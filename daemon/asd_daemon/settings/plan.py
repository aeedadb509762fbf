"""What shall run: the command line laid over what was chosen, that over the configuration, and all over the defaults.

Owns what overrides what. Nothing is opened here but the configuration file and `chosen.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from asd_daemon.errors import UsageError
from asd_daemon.hear.source_spec import SourceSpec, parse_source
from asd_daemon.judge.scoring.scoring_choice import Scoring
from asd_daemon.settings.broker_words import parse_broker
from asd_daemon.settings.chosen import Chosen, LaidOver, lay_over, read_chosen
from asd_daemon.settings.file import load_settings, settings_file, state_folder
from asd_daemon.settings.keys import MachineSettings, MqttSettings, Settings
from asd_daemon.settings.text_formats import checked_name


@dataclass(frozen=True)
class CommandLineOptions:
    """What the command line asks for."""

    config: Path | None = None
    machines: tuple[str, ...] = ()
    """Which to listen to; none: all that are configured."""
    bundle: Path | None = None
    source: str | None = None
    broker: str | None = None
    """HOST, HOST:PORT or mqtt://HOST:PORT."""
    no_mqtt: bool = False
    node: str | None = None
    scoring: Scoring | None = None


@dataclass(frozen=True)
class Plan:
    """What shall run."""

    settings: Settings
    file: Path | None
    """The configuration file, where there is one."""
    machines: dict[str, MachineSettings]
    """Each with its own scoring, where the configuration gives one for all."""
    sources: dict[str, SourceSpec]
    bundle: Path
    configured: Settings = field(default_factory=Settings)
    """As the file alone says."""
    chosen: Chosen = field(default_factory=lambda: Chosen(Path()))
    """What people have chosen."""
    laid: LaidOver = field(default_factory=lambda: LaidOver(Settings(), {}))
    """The one over the other."""

    @property
    def trusts_own(self) -> bool:
        """Whether the program's own bundle is used without a signature: until what is offered has been fetched there is no other."""
        return self.settings.bundle.url is not None

    @property
    def bundle_key(self) -> Path | None:
        """The public key that must have signed the bundle."""
        from asd_daemon.judge.bundle.own_bundle import default_bundle

        return None if self.trusts_own and self.bundle == default_bundle() else self.settings.bundle_key

    def model_of(self, machine: str) -> str:
        """The machine's name in the bundle."""
        return self.machines[machine].model or machine

    def scoring_of(self, machine: str) -> Scoring:
        """By what a machine is judged."""
        return self.machines[machine].scoring or "auto"

    def goes_on_with(self, machine: str) -> bool:
        """Whether a machine is heard as in the run before: no recordings, and no simulation that is only tried out on the command line."""
        source = self.sources[machine]
        is_tried = source.kind == "simulate" and source != self.machines[machine].source.spec()
        return source.kind not in ("file", "folder") and not is_tried


def make_plan(options: CommandLineOptions, *, configured: Settings | None = None, chosen: Chosen | None = None) -> Plan:
    """Read the configuration and what was chosen, and lay the command line over both.

    Args:
        options: the command line.
        configured: the configuration as it was read before; None: it is read now.
        chosen: what was chosen; None: it is read now.

    Raises:
        SettingsError: the configuration is wrong, or knows no such machine.
        UsageError: words of the command line that do not fit together.
    """
    file = settings_file(options.config)
    if configured is None:
        configured = load_settings(file) if file else Settings()
    if chosen is None:
        chosen = read_chosen(state_folder())
    laid = lay_over(chosen, configured, options.machines)
    settings = laid.settings
    if options.source is not None and len(options.machines) != 1:
        given = "give --machine NAME too" if not options.machines else "give one --machine, or configure their sources"
        raise UsageError(f"--source says what to hear, not whose sound it is: {given}")
    changes: dict[str, object] = {}
    if options.node is not None:
        changes["node"] = options.node
    if options.no_mqtt or options.broker is not None:
        changes["mqtt"] = None if options.no_mqtt else broker_settings(options.broker or "", settings.mqtt)
    settings = _changed(settings, changes)
    machines = {
        name: machine.model_copy(update={"scoring": options.scoring or machine.scoring or settings.scoring})
        for name, machine in _machines_of(settings, options, file, laid.alone).items()
    }
    sources = {name: machine.source.spec() for name, machine in machines.items()}
    if options.source is not None:
        sources[options.machines[0]] = parse_source(options.source)
    bundle = options.bundle or configured_bundle(settings) or installed_or_default_bundle()
    return Plan(settings, file, machines, sources, bundle, configured, chosen, laid)


def installed_or_default_bundle() -> Path:
    """The bundle that was installed on this box, else the one that comes with the program."""
    from asd_daemon.judge.bundle.own_bundle import default_bundle

    installed = state_folder() / "bundles" / "current"
    return installed if installed.exists() else default_bundle()


def configured_bundle(settings: Settings) -> Path | None:
    """The bundle that is configured; where that is where bundles are installed and none is current any more, the program's own is meant."""
    bundle = settings.bundle.folder
    if bundle is None or bundle.name != "current" or bundle.is_symlink() or bundle.exists():
        return bundle
    is_usual = bundle == state_folder() / "bundles" / "current"
    return None if is_usual or (bundle.parent / "versions").is_dir() else bundle


def _changed(settings: Settings, changes: dict[str, object]) -> Settings:
    """Settings with some values replaced, checked like those of a file."""
    try:
        return Settings.model_validate({**{k: getattr(settings, k) for k in settings.model_fields_set}, **changes})
    except ValidationError as e:
        raise UsageError(f"--node {changes.get('node')!r}: {e.errors()[0]['msg'].removeprefix('Value error, ')}") from e


def broker_settings(words: str, configured: MqttSettings | None) -> MqttSettings:
    """The broker of the command line; what it does not say is as configured.

    Raises:
        UsageError: the words are no broker.
    """
    try:
        said = parse_broker(words)
        given = {"host": said.host, "port": said.port, "tls": said.tls}
        keep = configured.model_dump(exclude={"host", "port"}, exclude_unset=True) if configured else {}
        return MqttSettings.model_validate(
            {**keep, **{key: value for key, value in given.items() if value is not None}}
        )
    except ValueError as e:
        why = e.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(e, ValidationError) else str(e)
        raise UsageError(f"--broker {words!r} must be HOST or HOST:PORT: {why}") from e


def _machines_of(
    settings: Settings, options: CommandLineOptions, file: Path | None, alone: Mapping[str, MachineSettings]
) -> dict[str, MachineSettings]:
    """The machines that are meant: those named, else all that are configured or were added."""
    names = options.machines
    if not names:
        if not settings.machines and file is None:
            raise UsageError("which machine? give --machine NAME (there is no configuration file)")
        return dict(settings.machines)
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--machine {name} is given twice; name each machine once")
    if settings.machines and (options.source is None or names[0] in settings.machines):
        return {name: settings.machine(name, str(file)) for name in names}
    for name in names:
        try:
            checked_name(name)
        except ValueError as e:
            raise UsageError(f"--machine {name!r}: {e}") from e
    return {name: alone.get(name) or MachineSettings() for name in names}
