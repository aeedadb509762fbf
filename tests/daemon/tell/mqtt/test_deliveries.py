"""Which message goes next, with a broker that says yes, no, nothing or hangs up by chance: every alert arrives in the end, in order."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from asd_daemon.judge.alarm.alarm import AlertKind
from asd_daemon.tell.mqtt.deliveries import Deliveries
from asd_daemon.tell.mqtt.message import Kind, Message
from asd_daemon.tell.mqtt.session import Ended, Limits
from asd_daemon.tell.storage.outbox import Outbox
from asd_daemon.tell.storage.refusals import Refusals

_SPEECHES = st.lists(
    st.tuples(st.sampled_from(["fan", "lathe"]), st.integers(0, 3), st.sampled_from([AlertKind.OPEN, AlertKind.CLOSE])),
    min_size=1,
    max_size=12,
)
_MOODS = st.lists(
    st.tuples(
        st.sampled_from(["yes", "yes", "no", "hang up", "silence", "shut down"]), st.sampled_from([0x87, 0x97, 0x95])
    ),
    max_size=60,
)


@settings(deadline=None)
@given(_SPEECHES, _MOODS)
def test_every_alert_arrives_once_the_broker_takes_it_and_none_overtakes_its_own_event(
    speeches: Sequence[tuple[str, int, AlertKind]], moods: Sequence[tuple[str, int]]
) -> None:
    outbox = Outbox(machines=["fan", "lathe"], limit=1000)
    for machine, event, kind in speeches:
        outbox.put(machine, f"{machine}/alert", b"{}", kind=kind, event_id=f"{machine}-{event}")
    deliveries = Deliveries(outbox, "b")
    for topic in ("fan/state", "lathe/state"):
        deliveries.stand(Message(Kind.STATE, topic, b"{}", topic))
    arrived: list[tuple[str, int]] = []
    now_s, number = 0.0, 0
    mood = iter([*moods, *[("yes", 0)] * 2000])
    deliveries.connected(Limits(), [], now_s)
    while len(outbox) and number < 3000:
        message = deliveries.next(now_s)
        if message is None:
            now_s += 60.0  # whatever waits for its time
            if deliveries.has_messages_on_the_way:
                deliveries.ended(Ended(), now_s)
                deliveries.connected(Limits(), [], now_s)
            continue
        number += 1
        deliveries.sent(number, message, now_s)
        what, code = next(mood)
        if what == "yes":
            deliveries.confirmed(number, 0, "", now_s)
            if message.alert is not None:
                arrived.append((message.alert.event_id, message.alert.key))
        elif what == "no":
            deliveries.confirmed(number, code, "", now_s)
        elif what != "silence":
            deliveries.ended(Ended(code=0x8B) if what == "shut down" else Ended(), now_s)
            deliveries.connected(Limits(), [], now_s)
    assert sorted(key for _, key in arrived) == sorted(range(1, len(speeches) + 1))
    for name in {event for event, _ in arrived}:
        keys = [key for event_id, key in arrived if event_id == name]
        assert keys == sorted(keys)
    assert deliveries.troubles == () or all("state" in trouble for trouble in deliveries.troubles)


def test_backlog_of_alerts_does_not_keep_states_back_for_ever() -> None:
    outbox = Outbox(machines=["fan"])
    for number in range(100):
        outbox.put("fan", "fan/alert", b"{}", kind=AlertKind.OPEN, event_id=str(number))
    deliveries = Deliveries(outbox, "b")
    deliveries.stand(Message(Kind.STATE, "fan/state", b"{}", "fan"))
    deliveries.connected(Limits(), [], 0.0)
    kinds: list[Kind] = []
    for number in range(30):
        while (message := deliveries.next(float(number))) is not None:
            deliveries.sent(len(kinds), message, float(number))
            kinds.append(message.kind)
        deliveries.confirmed(len(kinds) - 1, 0, "", float(number))
        for sent in range(len(kinds)):
            deliveries.confirmed(sent, 0, "", float(number))
    assert kinds[:9] == [Kind.ALERT] * 9
    assert Kind.STATE in kinds[9:15]


def test_refusals_come_later_each_time_and_costly_ones_much_later() -> None:
    refusals = Refusals()
    waits = []
    now_s = 0.0
    for _ in range(10):
        refusals.refused("a", "t", "no", now_s)
        wait_s = 1.0
        while not refusals.may_go("a", now_s + wait_s):
            wait_s += 1.0
        waits.append(wait_s)
        now_s += wait_s
    assert waits == [5, 10, 20, 40, 80, 160, 320, 600, 600, 600]
    refusals.refused("b", "t", "no", 0.0, is_costly=True)
    assert not refusals.may_go("b", 599)
    refusals.ask_again()
    assert refusals.may_go("a", 0)
    assert not refusals.may_go("b", 599), "a new connection is not spent on it"
    assert refusals.taken("a", "t")
    assert refusals.reasons() == {"t": "no"}
