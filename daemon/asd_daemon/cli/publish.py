"""`asd-fleet publish`: a bundle into a folder that a web server offers to boxes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asd_daemon.cli.options import PATH, json_option
from asd_daemon.errors import UsageError
from asd_daemon.wording import counted

if TYPE_CHECKING:
    from asd_daemon.rollout.offer import Ring

_RING = re.compile(r"(?P<name>[^=@]+)(?:=(?P<percent>\d{1,3})%?)?(?:@(?P<at>.+))?")


@click.command()
@click.argument("bundle", type=PATH, required=False)
@click.option("--to", "folder", type=PATH, required=True, metavar="FOLDER", help="What the web server offers.")
@click.option("--channel", default="stable", show_default=True, metavar="NAME", help="Boxes follow one channel.")
@click.option(
    "--sign", "key", type=PATH, required=True, metavar="KEY", help="Ed25519 private key that has signed the bundle too."
)
@click.option(
    "--ring",
    "rings",
    multiple=True,
    metavar="NAME[=PERCENT][@TIME]",
    help="Boxes that take it together, in this order, the last one is everybody else; not before TIME (UTC, or with an offset)."
    "  [default: as before; at first all boxes]",
)
@click.option(
    "--nodes",
    multiple=True,
    metavar="RING=PATTERN",
    help="Boxes whose names have this pattern (* and ?) belong to a ring.",
)
@click.option(
    "--valid",
    "valid_days",
    type=click.FloatRange(0, 3650, min_open=True),
    default=90,
    show_default=True,
    metavar="DAYS",
    help="How long boxes believe it; publish again before.",
)
@json_option
def publish(
    bundle: Path | None,
    folder: Path,
    channel: str,
    key: Path,
    rings: Sequence[str],
    nodes: Sequence[str],
    valid_days: float,
    as_json: bool,
) -> None:
    """Offer BUNDLE to the boxes of a channel: its files by their hash, and a signed rollout.json that names them.

    Without BUNDLE the one that is offered goes to other rings, or is signed anew. Any web server may offer the folder; nothing
    in it is secret.

    \b
    Examples:
      asd-fleet publish bundle --to /srv/www/asd --sign bundle-key.pem --ring canary --nodes 'canary=test-*' --ring plant=0
      asd-fleet publish --to /srv/www/asd --sign bundle-key.pem --ring canary --ring plant=25
      asd-fleet publish --to /srv/www/asd --sign bundle-key.pem --ring canary --ring plant@2026-12-01T06:00
    """
    from asd_daemon.rollout.publishing import publish as put

    done = put(
        bundle,
        folder,
        channel=channel,
        key=key,
        rings=_rings(rings, nodes),
        valid_for=timedelta(days=valid_days),
        now=datetime.now(UTC),
    )
    offered = done.offered
    total = sum(file.bytes for file in offered.files.values())
    if as_json:
        facts = {
            "channel": channel,
            "serial": done.offer.serial,
            "id": offered.id,
            "name": offered.name,
            "version": offered.version,
            "bytes": total,
            "new_files": done.new_files,
            "new_bytes": done.new_bytes,
            "rings": [ring.model_dump(mode="json") for ring in offered.rings],
            "expires": done.offer.expires.isoformat(),
        }
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    new = f"new here: {counted(done.new_files, 'file')}, {done.new_bytes / 1e6:.1f} MB"
    click.echo(f"{channel}: {offered.words}, {counted(len(offered.files), 'file')}, {total / 1e6:.1f} MB; {new}")
    for ring in offered.rings:
        begins = f", not before {ring.not_before.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if ring.not_before else ""
        who = f" ({', '.join(ring.nodes)})" if ring.nodes else ""
        click.echo(f"  ring {ring.name}{who}: {ring.percent} %{begins}")
    click.echo(
        f"serial {done.offer.serial}, believed until {done.offer.expires:%Y-%m-%d}; written to {folder}/rollout.json"
    )


def _rings(words: Sequence[str], nodes: Sequence[str]) -> list[Ring] | None:
    """The rings of the command line; None where it has none.

    Raises:
        UsageError: a word is none.
    """
    from pydantic import ValidationError

    from asd_daemon.rollout.offer import Ring

    patterns: dict[str, list[str]] = {}
    for word in nodes:
        name, is_one, pattern = word.partition("=")
        if not is_one or not pattern:
            raise UsageError(f"--nodes {word}: must be RING=PATTERN, such as canary=test-*")
        patterns.setdefault(name, []).append(pattern)
    found: list[Ring] = []
    for word in words:
        parts = _RING.fullmatch(word)
        if parts is None:
            raise UsageError(f"--ring {word}: must be NAME, NAME=PERCENT, NAME@TIME or NAME=PERCENT@TIME")
        try:
            at = datetime.fromisoformat(parts["at"]) if parts["at"] else None
            at = at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at
            name = parts["name"]
            known = tuple(patterns.pop(name, ()))
            found.append(Ring(name=name, percent=int(parts["percent"] or 100), nodes=known, not_before=at))
        except ValidationError as e:
            first = e.errors()[0]
            is_share = first["loc"][:1] == ("percent",)
            raise UsageError(f"--ring {word}: {'PERCENT is 0 to 100' if is_share else first['msg']}") from e
        except ValueError as e:
            raise UsageError(f"--ring {word}: {e}") from e
    if patterns:
        raise UsageError(f"--nodes {next(iter(patterns))}: is none of the rings; name it with --ring")
    if len({ring.name for ring in found}) < len(found):
        raise UsageError("--ring: each ring is named once")
    return found or None
