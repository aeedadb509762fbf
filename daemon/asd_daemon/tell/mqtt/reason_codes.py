"""What a broker means by its codes, in words: why it does not take us, why it does not take a message, why it ends a connection.

Pure. The codes are those of MQTT 5; those of MQTT 3.1.1's CONNACK are brought to them by the library.
"""

from __future__ import annotations

SESSION_TAKEN_OVER = 0x8E
PACKET_TOO_LARGE = 0x95
_IDENTIFIER_NOT_VALID = 0x85
_FIRST_REFUSAL = 0x80
_OTHER_VERSION = frozenset({0x01, 0x81, 0x82, 0x84})
_NOT_ABOUT_A_MESSAGE = frozenset({0x89, 0x8B, 0x8D, 0x8E, 0x98, 0x9C, 0x9D, 0x9F, 0xA0})

_CONNECT = {
    0x80: "it gives no reason",
    0x83: "for a reason of its own",
    0x84: "it speaks neither MQTT 5 nor 3.1.1",
    0x85: "it does not take our name; another `node` may help",
    0x86: "Bad user name or password; look at mqtt.username and the password",
    0x87: "Not authorized; check username and password, and this user's rights: to connect,"
    " and to publish the last will on the availability topic",
    0x88: "the server is not available at present",
    0x89: "it is busy",
    0x8A: "we are banned there",
    0x8C: "it wants another way to log in than username and password",
    0x90: "it does not take the topic of our last will; has mqtt.prefix a form that it allows?",
    0x95: "our CONNECT is larger than it takes",
    0x97: "a quota is exceeded",
    0x9A: "it keeps no retained messages, which states and availability need",
    0x9B: "it takes QoS 0 only, so no alert could be confirmed",
    0x9C: "it asks us to use another server for now",
    0x9D: "the server has moved for good",
    0x9F: "too many connections in too short a time",
}
_PUBLISH = {
    0x80: "refused without a reason",
    0x83: "refused for a reason of its own",
    0x87: "Not authorized; give this user the right to publish there",
    0x90: "it does not take that topic",
    0x91: "packet identifier in use",
    0x95: "the packet is larger than it takes",
    0x97: "a quota is exceeded",
    0x99: "it does not take the form of the payload",
}
_DISCONNECT = {
    0x80: "no reason given",
    0x81: "it calls a packet malformed",
    0x82: "it calls a packet a violation of the protocol",
    0x83: "for a reason of its own",
    0x87: "Not authorized",
    0x89: "it is busy",
    0x8B: "it is shutting down",
    0x8D: "it has heard nothing of us for too long",
    0x8E: "session taken over",
    0x90: "it does not take a topic",
    0x93: "more messages on the way than it takes",
    0x95: "a packet is larger than it takes",
    0x96: "too many messages in too short a time",
    0x97: "a quota is exceeded",
    0x98: "its administrator has ended it",
    0x99: "it does not take the form of a payload",
    0x9A: "it keeps no retained messages",
    0x9B: "it takes QoS 0 only",
    0x9C: "it asks us to use another server for now",
    0x9D: "the server has moved for good",
    0x9F: "too many connections in too short a time",
    0xA0: "the connection has lasted as long as it allows",
}


def is_refusal(code: int) -> bool:
    """Whether a code says no."""
    return code >= _FIRST_REFUSAL


def is_of_another_version(code: int) -> bool:
    """Whether a broker that answers CONNECT so may understand another version of MQTT."""
    return code in _OTHER_VERSION


def may_be_about_a_message(code: int) -> bool:
    """Whether a connection that ends so may have ended for what was published last."""
    return code not in _NOT_ABOUT_A_MESSAGE


def connect_refusal(code: int, detail: str = "") -> str:
    """Why a broker does not take us."""
    return _worded(_CONNECT, code, detail)


def publish_refusal(code: int, detail: str = "") -> str:
    """Why a broker does not take a message, or a subscription."""
    return _worded(_PUBLISH, code, detail)


def disconnect_words(code: int, detail: str = "") -> str:
    """Why a broker has ended a connection."""
    return _worded(_DISCONNECT, code, detail)


def _worded(words: dict[int, str], code: int, detail: str) -> str:
    said = f"; it says: {detail[:200]}" if detail else ""
    return f"{words.get(code, 'for a reason that this program does not know')} (code 0x{code:02X}{said})"
