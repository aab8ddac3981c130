"""What all competitors send and parse: payloads of 1 MiB; lines and what they are made of."""

MEBIBYTE = 1024 * 1024

# The backslash first: `escape` replaces one after the other.
_ESCAPES = {
    b"\\": b"\\\\",
    b" ": b"\\_",
    b"\0": b"\\0",
    b"\n": b"\\n",
    b"\r": b"\\r",
    b"\x1b": b"\\e",
    b"\t": b"\\t",
}
_SPECIALS = b"".join(_ESCAPES)
_PLAIN = b"abcdefghijklmnopqrstuvwxyz0123456789"


def escape(argument):
    """Return *argument* as it is on the wire."""
    for special, escaped in _ESCAPES.items():
        argument = argument.replace(special, escaped)
    return argument or b"\\@"


# Payloads, as the server calls them: every so many bytes one that has to be escaped, in turn
# one of these.
_PAYLOADS = {
    "plain": (0, b""),
    "escaped-16": (16, _SPECIALS),
    "escaped-2": (2, _SPECIALS),
    "spaces-16": (16, b" "),
    "spaces-2": (2, b" "),
    "zeros": (1, b"\0"),
}
PAYLOAD_KINDS = tuple(_PAYLOADS)


def make_payload(kind):
    """Return the 1 MiB that the server calls *kind*."""
    special_every, specials = _PAYLOADS[kind]
    payload = bytearray(_PLAIN * (MEBIBYTE // len(_PLAIN) + 1))[:MEBIBYTE]
    if special_every:
        places = MEBIBYTE // special_every
        payload[special_every - 1 :: special_every] = (specials * places)[:places]
    return bytes(payload)


# One line with 4100 numbers, as a gain table has.
GAINS = b"?gain[17] m000h " + b" ".join(b"%.7f" % (1 + i / 4099) for i in range(4100))


def _make_line(kind, name, mid, arguments):
    symbol = {"request": b"?", "reply": b"!", "inform": b"#"}[kind]
    head = symbol + name.encode() + (b"" if mid is None else b"[%d]" % mid)
    return b" ".join([head, *map(escape, arguments)])


def _status(i):
    timestamp = b"15000%05d.%06d" % (i, i * 617 % 1000000)
    sensor = b"m%03d.rsc.rx.temperature" % (i % 64)
    return "inform", "sensor-status", None, [timestamp, b"1", sensor, b"nominal", b"%d.25" % i]


def _request(i):
    return "request", "sensor-value", i + 1, [b"m%03d.mode" % (i % 64)]


def _reply(i):
    return "reply", "sensor-value", i + 1, [b"ok", b"%d" % i]


def _escaped(i):
    return "reply", "note", i + 1, [b"ok", b"a short line\n", b"", b"full of\tescapes \\ %d\0" % i]


def _sample(make_parts, count=1000):
    parts = [make_parts(i) for i in range(count)]
    return [_make_line(*part) for part in parts], parts


# Name of the sample: its lines, and the same as (kind, name, id, arguments).
SAMPLES = {
    "status": _sample(_status),
    "request": _sample(_request),
    "reply": _sample(_reply),
    "escapes": _sample(_escaped),
    "plain-mib": _sample(lambda i: ("reply", "fetch", 1, [b"ok", make_payload("plain")]), 1),
    "escaped-mib": _sample(lambda i: ("reply", "fetch", 1, [b"ok", make_payload("escaped-16")]), 1),
    "spaces-mib": _sample(lambda i: ("reply", "fetch", 1, [b"ok", make_payload("spaces-16")]), 1),
}
