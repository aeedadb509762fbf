"""Who may look and who may act: passwords, sessions, and how often somebody may try.

    operator:$argon2id$…        one line a role; only the hash is kept
    viewer:$argon2id$…          may look, listen and read, but change nothing

Sessions live in memory: a restart ends them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from argon2 import PasswordHasher, Type
from argon2.exceptions import Argon2Error, InvalidHashError

from asd_daemon.errors import SettingsError
from asd_daemon.private_files import write_private

OPERATOR, VIEWER = "operator", "viewer"
ROLES = (OPERATOR, VIEWER)
MOST_PASSWORD_CHARACTERS = 1000
LEAST_PASSWORD_CHARACTERS = 8
# What OWASP's password storage cheat sheet asks at least; more memory than this would be felt on a small box
HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, type=Type.ID)
_MOST_SESSIONS = 1000
_MOST_ADDRESSES = 10_000
_TRIES, _TRIES_S = 5, 60.0
_TRIES_OF_ALL = 60


@dataclass(frozen=True)
class Session:
    """Somebody who has logged in."""

    role: str
    ends_s: float
    """By the steady clock."""


class Sessions:
    """Those that are open."""

    def __init__(self, hours: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._hours, self._clock_s = hours, clock_s
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._key = secrets.token_bytes(32)

    def open(self, role: str) -> str:
        """A new session's token, which nobody can guess."""
        token = secrets.token_urlsafe(32)
        self._sessions[_digest(token)] = Session(role, self._clock_s() + self._hours * 3600)
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return token

    def role(self, token: str) -> str | None:
        """Who holds this token; None where nobody does, or not any more."""
        session = self._sessions.get(_digest(token))
        if session is None:
            return None
        if self._clock_s() >= session.ends_s:
            self.close(token)
            return None
        return session.role

    def close(self, token: str) -> None:
        """Log out."""
        self._sessions.pop(_digest(token), None)

    def form_token(self, cookie: str) -> str:
        """What a form must carry that was made for the holder of this cookie."""
        return hmac.new(self._key, cookie.encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, cookie: str, given: str) -> bool:
        """Whether it does; takes as long whatever is wrong."""
        return hmac.compare_digest(self.form_token(cookie).encode(), given.encode("utf-8", "replace"))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


class Tries:
    """How often passwords were tried in vain, by address and by all."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._failed: OrderedDict[str, list[float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """How long this address must wait before the next try; 0: it need not."""
        now_s = self._clock_s()
        waits = [0.0]
        for who, most in ((address, _TRIES), ("", _TRIES_OF_ALL)):
            recent = [at_s for at_s in self._failed.get(who, ()) if now_s - at_s < _TRIES_S]
            if len(recent) >= most:
                waits.append(_TRIES_S - (now_s - recent[-most]))
        return max(waits)

    def fail(self, address: str) -> None:
        """A password was wrong."""
        now_s = self._clock_s()
        for who in (address, ""):
            recent = [at_s for at_s in self._failed.pop(who, ()) if now_s - at_s < _TRIES_S]
            self._failed[who] = [*recent, now_s]
        while len(self._failed) > _MOST_ADDRESSES:
            self._failed.popitem(last=False)


def read_passwords(file: Path) -> dict[str, str]:
    """The hashes by role.

    Raises:
        SettingsError: the file can't be read or says something else; names file and line, and no hash.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise SettingsError(
            f"web.password_file: {file} can't be read: {reason}; `asd-daemon web --set-login operator` writes it"
        ) from e
    hashes: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        role, _, hashed = line.strip().partition(":")
        if role not in ROLES or not hashed.startswith("$argon2id$"):
            raise SettingsError(f"web.password_file: {file}, line {number}: must be operator:HASH or viewer:HASH")
        hashes[role] = hashed
    if OPERATOR not in hashes:
        raise SettingsError(f"web.password_file: {file} has no line for the operator; write it with --set-login")
    return hashes


def set_password(file: Path, role: str, password: str) -> None:
    """Write a role's password into the file; other lines stay.

    Raises:
        SettingsError: it is too short, or the file can't be written.
    """
    if not LEAST_PASSWORD_CHARACTERS <= len(password) <= MOST_PASSWORD_CHARACTERS:
        raise SettingsError(
            f"a password has {LEAST_PASSWORD_CHARACTERS} to {MOST_PASSWORD_CHARACTERS} characters, this one {len(password)}"
        )
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        lines = [line for line in lines if not line.startswith(f"{role}:")]
        write_private(file, "\n".join([*lines, f"{role}:{HASHER.hash(password)}"]) + "\n")
    except OSError as e:
        raise SettingsError(f"web.password_file: {file} can't be written: {e.strerror}") from e


def role_of_password(hashes: dict[str, str], password: str) -> str | None:
    """Whose password this is; None: nobody's. Takes some tens of milliseconds for each role, always."""
    found = None
    for role in reversed(ROLES):  # a password that both have is the operator's
        if role not in hashes:
            continue
        try:
            HASHER.verify(hashes[role], password)
        except (Argon2Error, InvalidHashError):
            continue
        found = role
    return found
