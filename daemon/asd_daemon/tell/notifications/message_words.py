"""Notices → one message: title, lines, a link. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo

from asd_daemon.redaction import redact
from asd_daemon.tell.notifications.notice import Message, Notice, NoticeKind

_MOST_LINES, _MOST_NAMED = 20, 3


def message_of(
    notices: Sequence[Notice],
    node: str,
    *,
    zone: tzinfo | None = None,
    page_url: str | None = None,
    picture: bytes | None = None,
    held_back: str | None = None,
) -> Message:
    """What one recipient is told at once.

    Args:
        notices: what happened, at least one, in its order.
        node: this box's name.
        zone: in which times are told; None: this box's own.
        page_url: where the page is.
        picture: PNG of the first alert.
        held_back: why more will come later, in words.
    """
    if len(notices) == 1:
        (notice,) = notices
        lines = [*_details(notice, zone), node]
        link = _link(notice, page_url)
    else:
        machines = dict.fromkeys(notice.machine for notice in notices)
        shown = notices if len(notices) <= _MOST_LINES else notices[:_MOST_LINES]
        lines = [f"{_clock(notice.at_s, zone)}  {_headline(notice)}{_reason(notice)}" for notice in shown]
        if len(notices) > len(shown):
            lines.append(f"and {len(notices) - len(shown)} more")
        lines.append(node)
        alone = len(machines) == 1 and len({notice.event_id for notice in notices}) == 1
        link = _link(notices[0], page_url) if alone else (f"{page_url.rstrip('/')}/alerts" if page_url else None)
    lines += [link] if link else []
    lines += [held_back] if held_back else []
    is_good = all(notice.is_over for notice in notices)
    return Message(redact(_title(notices)), redact("\n".join(lines)), is_good, picture)


def _title(notices: Sequence[Notice]) -> str:
    if len(notices) == 1:
        return _headline(notices[0])
    machines = list(dict.fromkeys(notice.machine for notice in notices))
    if len(machines) == 1:
        last = notices[-1]
        return _headline(last) if last.is_over else _headline(notices[0])
    names = ", ".join(machines[:_MOST_NAMED])
    more = f" and {len(machines) - _MOST_NAMED} more" if len(machines) > _MOST_NAMED else ""
    is_over = all(notice.is_over for notice in notices)
    return f"{len(machines)} machines {'are well again' if is_over else 'need attention'}: {names}{more}"


def _headline(notice: Notice) -> str:
    """What happened, in a few words."""
    machine = notice.machine
    match notice.kind:
        case NoticeKind.OPEN:
            return f"{machine}: sounds wrong"
        case NoticeKind.UPDATE:
            return f"{machine}: still sounds wrong"
        case NoticeKind.CLOSE:
            return f"{machine}: alert is over"
        case NoticeKind.DEAF:
            return f"{machine}: heard again" if notice.is_over else f"{machine}: can't be heard"
        case NoticeKind.DRIFT:
            return f"{machine}: slowly changes"
        case NoticeKind.ESCALATION:
            return f"{machine}: nobody has answered"


def _reason(notice: Notice) -> str:
    return f": {notice.text}" if notice.text else ""


def _details(notice: Notice, zone: tzinfo | None) -> list[str]:
    lines = [notice.text] if notice.text else []
    lines.append(_when(notice, zone))
    if notice.score is not None:
        lines.append(f"Score {notice.score}")
    return lines


def _when(notice: Notice, zone: tzinfo | None) -> str:
    at = _time(notice.at_s, zone)
    if notice.since_s is None or notice.since_s == notice.at_s:
        return at
    lasted = timedelta(seconds=max(0, round(notice.at_s - notice.since_s)))
    since = _time(notice.since_s, zone)
    return f"{since}, for {_duration(lasted)}" if notice.is_over else f"Since {since}"


def _duration(lasted: timedelta) -> str:
    minutes = round(lasted.total_seconds() / 60)
    if minutes < 1:
        return f"{lasted.seconds} s"
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes / 60
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def _time(at_s: float, zone: tzinfo | None) -> str:
    at = datetime.fromtimestamp(at_s, UTC).astimezone(zone)
    return f"{at:%Y-%m-%d %H:%M:%S} {at.tzname()}"


def _clock(at_s: float, zone: tzinfo | None) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC).astimezone(zone):%H:%M}"


def _link(notice: Notice, page_url: str | None) -> str | None:
    """Where the page shows it."""
    if page_url is None:
        return None
    is_of_alert = notice.kind not in (NoticeKind.DEAF, NoticeKind.DRIFT)
    return f"{page_url.rstrip('/')}/alerts/{notice.event_id}" if is_of_alert else f"{page_url.rstrip('/')}/"
