"""`asd-daemon bundle`: verify, install, roll back."""

from __future__ import annotations

import json
from pathlib import Path

import click

from asd_daemon.cli.console import exit_with_message
from asd_daemon.cli.options import PATH, json_option
from asd_daemon.errors import BundleError

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


@click.group()
def bundle() -> None:
    """Look after bundles of models: verify, install, roll back."""


@bundle.command()
@click.argument("path", type=PATH)
@_key
@json_option
def verify(path: Path, key: Path | None, as_json: bool) -> int:
    """Check every file of a bundle against its hash, its models' shapes, and its reference scores on this box; exit code 1 if it is wrong.

    With --key also its signature.
    """
    from asd_daemon.judge.bundle.bundle import load_bundle
    from asd_daemon.judge.scoring.scorer import self_test

    key = key or _configured_key()
    try:
        found = load_bundle(path, key)
        compared = self_test(found)
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
@json_option
def install(path: Path, root: Path | None, key: Path | None, as_json: bool) -> None:
    """Copy a bundle to this box and make it the current one, in one step; the one before is kept.

    It is verified before and tested after the switch; when it fails, the one before is current again. A daemon that runs takes it at its
    next start.
    """
    from asd_daemon.judge.scoring.installed_bundles import install_bundle

    done = install_bundle(path, root or _default_root(), key or _configured_key())
    _print_result(
        done.bundle.path, done.bundle.name, done.bundle.version, done.reference_scores, done.replaced, as_json
    )


@bundle.command()
@_root
@_key
@json_option
def rollback(root: Path | None, key: Path | None, as_json: bool) -> None:
    """Make the bundle before the current one current again."""
    from asd_daemon.judge.scoring.installed_bundles import roll_back

    done = roll_back(root or _default_root(), key or _configured_key())
    _print_result(
        done.bundle.path, done.bundle.name, done.bundle.version, done.reference_scores, done.replaced, as_json
    )


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


def _default_root() -> Path:
    from asd_daemon.settings.file import state_folder

    return state_folder() / "bundles"
