"""`asd-daemon bundle`: verify, install, roll back, how far a rollout is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asd_daemon.cli.console import exit_with_message
from asd_daemon.cli.options import PATH, json_option
from asd_daemon.errors import AsdError, BundleError

if TYPE_CHECKING:
    from asd_daemon.judge.bundle.bundle import Bundle

_key = click.option(
    "--key",
    type=PATH,
    metavar="FILE",
    help="Ed25519 public key (PEM) that must have signed it.  [default: bundle_key of $ASD_CONFIG]",
)
_root = click.option(
    "--to",
    "root",
    type=PATH,
    metavar="FOLDER",
    help="Where this box keeps its bundles.  [default: bundles in the state folder]",
)

_force = click.option(
    "--force",
    is_flag=True,
    help="Do it even if machines learned here then can't be judged until they are enrolled again.",
)


@click.group()
def bundle() -> None:
    """Look after bundles of models: verify, install, roll back, see what is offered."""


@bundle.command()
@click.argument("path", type=PATH)
@_key
@json_option
def verify(path: Path, key: Path | None, as_json: bool) -> int:
    """Check every file of a bundle against its hash, its models' shapes, and its reference scores on this box; exit code 1 if it is wrong.

    With --key also its signature.
    """
    from asd_daemon.judge.bundle.bundle import load_bundle
    from asd_daemon.judge.scoring.bounded_self_test import bounded_self_test

    key = key or _configured_key()
    try:
        found = load_bundle(path, key)
        compared = bounded_self_test(found)
    except BundleError as e:
        if as_json:
            click.echo(json.dumps({"path": str(path), "well": False, "reason": str(e)}, ensure_ascii=False))
            return 1
        exit_with_message(str(e), 1)
    facts = {
        "path": str(path),
        "well": True,
        "name": found.name,
        "version": found.version,
        "machines": list(found.machines),
        "reference_scores": compared,
        "signed_by": str(key) if key else None,
    }
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False))
    else:
        signed = f", signed by the owner of {key}" if key else ""
        click.echo(f"{path}: {found.name} {found.version} is whole{signed}; machines: {', '.join(found.machines)}")
        click.echo(f"{compared} reference scores reached on this box")
    return 0


@bundle.command()
@click.argument("path", type=PATH)
@_root
@_key
@_force
@json_option
def install(path: Path, root: Path | None, key: Path | None, force: bool, as_json: bool) -> int:
    """Copy a bundle to this box and make it the current one, in one step; the one before is kept.

    It is verified before and tested after the switch; when it fails, the one before is current again. Machines that were learned here
    and can't be judged with it as they are, are named before and, where enough was kept of their enrolment, learned anew after. A daemon
    that runs takes the bundle at its next start.
    """
    from asd_daemon.judge.bundle.bundle import load_bundle
    from asd_daemon.judge.scoring.installed_bundles import install_bundle

    root, key = root or _default_root(), key or _configured_key()
    needs = _needs(load_bundle(path, key), root.parent, force=force)
    done = install_bundle(path, root, key)
    well = _relearn(done.bundle, needs)
    _print_result(
        done.bundle.path, done.bundle.name, done.bundle.version, done.reference_scores, done.replaced, as_json
    )
    return 0 if well else 1


@bundle.command()
@_root
@_key
@_force
@json_option
def rollback(root: Path | None, key: Path | None, force: bool, as_json: bool) -> int:
    """Make the bundle before the current one current again; before the first that was installed, the program's own.

    Machines that were learned here are looked after as by install.
    """
    from asd_daemon.judge.scoring.installed_bundles import bundle_before, roll_back

    root, key, trusts_own = root or _default_root(), key or _configured_key(), _trusts_own()
    before = bundle_before(root, key, trusts_own=trusts_own)
    needs = [] if before is None else _needs(before, root.parent, force=force)
    done = roll_back(root, key, trusts_own=trusts_own)
    well = _relearn(done.bundle, needs)
    _print_result(
        done.bundle.path, done.bundle.name, done.bundle.version, done.reference_scores, done.replaced, as_json
    )
    return 0 if well else 1


@bundle.command()
@_root
@json_option
def status(root: Path | None, as_json: bool) -> int:
    """Say which bundle is current and how far one is that a server offers; exit code 1 where what is offered stays out.

    From what lies in the state folder; it asks nobody.
    """
    from asd_daemon.judge.bundle.bundle import MANIFEST, default_bundle
    from asd_daemon.judge.bundle.manifest import Manifest
    from asd_daemon.rollout.current import current_folder
    from asd_daemon.rollout.rollout_state import Phase, read_state, report_of, state_file

    root = root or _default_root()
    folder = current_folder(root)
    try:
        manifest = Manifest.parse((folder / MANIFEST).read_bytes(), folder / MANIFEST)
    except OSError as e:
        raise BundleError(f"{folder / MANIFEST}: can't be read: {e.strerror}") from e
    state = read_state(state_file(root))
    facts = report_of(state, f"{manifest.name} {manifest.version}")
    trial = state.trial
    checked = None if state.checked_at is None else f"{state.checked_at:%Y-%m-%dT%H:%M:%SZ}"
    seen = (
        None if trial is None else {"seconds": round(trial.seconds), "windows": trial.windows, "dropped": trial.dropped}
    )
    if as_json:
        click.echo(json.dumps({"path": str(folder), **facts, "checked": checked, "trial": seen}, ensure_ascii=False))
    else:
        own = ", which came with the program" if folder == default_bundle().resolve() else ""
        click.echo(f"current: {facts['version']} ({folder}{own})")
        reason = f": {facts['reason']}" if facts["reason"] else ""
        click.echo(f"offered: {facts['offered'] or 'nothing'}, {facts['phase']}{reason}")
        click.echo(f"last answer of the server: {checked or 'none yet'}")
        if trial is not None:
            hours = trial.seconds / 3600
            click.echo(f"trial: {hours:.1f} h, {trial.windows} windows judged by both, {trial.dropped} left out")
    return 1 if state.phase in (Phase.REFUSED, Phase.RETURNED) else 0


def _needs(found: Bundle, state: Path, *, force: bool) -> list[tuple[Path, str]]:
    """Say which machines a bundle can't judge as they were learned here; those that can be learned anew, with where they lie.

    Services have a state folder each below the one that their bundles lie in.

    Raises:
        BundleError: one of them can't, and nobody has said that this is meant.
    """
    from asd_daemon.learn.enrolled_machines import enrolled_names
    from asd_daemon.learn.relearning import relearning_needs

    able, deaf = [], []
    for root in (state / "enrolled", *sorted(state.glob("*/enrolled"))):
        for need in relearning_needs(found, root, enrolled_names(root)):
            what = (
                "it is learned anew from what was kept"
                if need.can_be_done
                else "it must be heard again (enroll --relearn)"
            )
            click.echo(f"{need.machine}: {what}: {need.why}", err=True)
            if need.can_be_done:
                able.append((root, need.machine))
            else:
                deaf.append(need.machine)
    if found.manifest.embedder is None and (by_paper := _judged_by_paper()) and not force:
        raise BundleError(
            f"{found.path}: has no embedder, and {', '.join(by_paper)}: scoring: paper is configured; nothing was changed; --force does it"
            " all the same"
        )
    if deaf and not force:
        raise BundleError(
            f"{found.path}: {', '.join(deaf)} could not be judged with this bundle until somebody enrols"
            f" {'them' if len(deaf) > 1 else 'it'} again; nothing was changed; --force does it all the same"
        )
    return able


def _judged_by_paper() -> list[str]:
    """Machines of the configuration that are judged by the paper's back end."""
    from asd_daemon.settings.file import load_settings, settings_file

    file = settings_file(None)
    settings = load_settings(file) if file else None
    machines = settings.machines.items() if settings is not None else ()
    return [name for name, one in machines if settings and (one.scoring or settings.scoring) == "paper"]


def _relearn(found: Bundle, machines: list[tuple[Path, str]]) -> bool:
    """Learn machines anew from what was kept; whether all of it went well."""
    from asd_daemon.learn.relearning import relearn_from_kept
    from asd_daemon.settings.file import load_settings, settings_file

    file = settings_file(None)
    keeps_sound = load_settings(file).keep.keeps_enrolment_sound if file else True
    well = True
    for root, machine in machines:
        try:
            record = relearn_from_kept(found, root, machine, keeps_sound=keeps_sound)
        except AsdError as e:
            well = False
            click.echo(f"{machine}: can't be learned anew: {e}; a daemon tries again when it starts", err=True)
        else:
            click.echo(f"{machine}: learned anew from {record.windows} kept windows", err=True)
    return well


def _print_result(path: Path, name: str, version: str, scores: int, replaced: str | None, as_json: bool) -> None:
    if as_json:
        facts = {"path": str(path), "name": name, "version": version, "reference_scores": scores, "replaced": replaced}
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    click.echo(f"{name} {version} is current now ({path}); {scores} reference scores reached on this box")
    if replaced:
        click.echo(f"before it: {replaced}")


def _configured_key() -> Path | None:
    """The key that the configuration asks for, where there is a configuration."""
    from asd_daemon.settings.file import load_settings, settings_file

    file = settings_file(None)
    return load_settings(file).bundle_key if file else None


def _trusts_own() -> bool:
    """Whether the program's own bundle needs no signature: where bundles are fetched, it is what a new box begins with."""
    from asd_daemon.settings.file import load_settings, settings_file

    file = settings_file(None)
    return file is not None and load_settings(file).bundle.url is not None


def _default_root() -> Path:
    from asd_daemon.settings.file import state_folder

    return state_folder() / "bundles"
