"""`asd-daemon web`: the page for the people at the machine."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asd_daemon.cli.options import config_option
from asd_daemon.errors import CannotStartError, SettingsError, UsageError

if TYPE_CHECKING:
    from asd_daemon.settings.keys import WebSettings
    from asd_daemon.web.options import WebOptions

_SYSTEM_STATE = ("/var/lib/asd-daemon", "/var/lib/asd-daemon/*")
_SYSTEM_STATUS = ("/run/asd-daemon", "/run/asd-daemon/*")


@click.command()
@config_option
@click.option("--host", metavar="ADDRESS", help="Address to answer on.  [default: configured, 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65_535), help="TCP port.  [default: configured, 8470]")
@click.option("--set-login", type=click.Choice(["operator", "viewer"]), help="Ask for a password, keep it, and end.")
def web(config: Path | None, host: str | None, port: int | None, set_login: str | None) -> None:
    """Show all machines of this box to browsers: state, live sound, scores, alerts with their sound.

    A process of its own, which reads what the daemons leave and costs them nothing. It answers on this box alone unless web.host says
    otherwise, and then asks for a password (web.password_file), or believes a reverse proxy (web.proxy_header). The operator may do
    everything, a viewer may look.

    \b
    Examples:
      asd-daemon web
      asd-daemon web --set-login operator
    """
    from asd_daemon.settings.file import load_settings, settings_file
    from asd_daemon.settings.keys import Settings

    file = settings_file(config)
    settings = (load_settings(file) if file else Settings()).web
    changes = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    settings = settings.model_copy(update=changes)
    if set_login is not None:
        _set_password(settings, set_login)
        return
    _refuse_open_network(settings)
    options = _options(settings, file)
    try:
        import uvicorn  # noqa: F401
    except ImportError as e:
        raise CannotStartError("the page needs further packages: pip install 'asd-edge[web]'") from e
    _refuse_taken_port(options.host, options.port)
    shown = f"[{options.host}]" if ":" in options.host else options.host
    click.echo(f"http://{shown}:{options.port}/", err=True)
    os.execv(sys.executable, [sys.executable, "-m", "asd_daemon.web.server", options.to_json()])  # noqa: S606


def _set_password(settings: WebSettings, role: str) -> None:
    if settings.password_file is None:
        raise UsageError("web.password_file is not configured; it says where passwords are kept")
    from asd_daemon.web.sessions import set_password

    password = click.prompt(f"Password of the {role}", hide_input=True, confirmation_prompt=True)
    set_password(settings.password_file, role, password)
    click.echo(f"{settings.password_file}: written; restart the page")


def _refuse_open_network(settings: WebSettings) -> None:
    """Nobody but people at this box may look without having said who they are."""
    try:
        is_here = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        is_here = settings.host == "localhost"
    if not is_here and settings.password_file is None and settings.proxy_header is None:
        raise SettingsError(
            f"web.host: {settings.host} is open to the network: configure web.password_file and run"
            " `asd-daemon web --set-login operator`, or web.proxy_header behind a reverse proxy"
        )


def _refuse_taken_port(host: str, port: int) -> None:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server((str(address[0]), port), family=family).close()
    except OSError as e:
        why = os.strerror(e.errno) if e.errno is not None and e.errno in errno.errorcode else e.strerror
        raise CannotStartError(f"web.port: {host}:{port} can't be used: {why}; choose another port") from e


def _options(settings: WebSettings, file: Path | None) -> WebOptions:
    from importlib import metadata

    from asd_daemon.settings.file import state_folder
    from asd_daemon.watch.status import status_folder
    from asd_daemon.web.options import WebOptions

    is_chosen = bool(os.environ.get("ASD_STATE_DIR"))
    try:
        own = [state_folder()]
    except SettingsError:  # under its unit the page has a user without a home: it shows what the services keep
        own = []
    return WebOptions(
        host=settings.host,
        port=settings.port,
        state_folders=(*(str(folder.absolute()) for folder in own), *(() if is_chosen else _SYSTEM_STATE)),
        status_folders=(
            *(str(status_folder(folder).absolute()) for folder in own),
            *(() if is_chosen else _SYSTEM_STATUS),
        ),
        hosts=settings.hosts,
        password_file=str(settings.password_file.absolute()) if settings.password_file else None,
        proxy_header=settings.proxy_header,
        proxy_address=settings.proxy_address,
        session_hours=settings.session_hours,
        version=metadata.version("asd-edge"),
        configuration=str(file.absolute()) if file else None,
    )
