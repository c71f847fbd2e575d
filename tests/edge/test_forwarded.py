"""Whom is believed where a client is."""

import pytest

from ring.config import Settings, SettingsError, load
from ring.edge.forwarded import client_address
from ring.protocol.upgrade import Headers, Request

TRUSTED = Settings(name="n1", trusted_proxies=("127.0.0.1", "10.0.0.0/8", "fd00::/8")).trusted_networks()


def ask(peername: str, *said: str) -> str:
    """The address of a client whose request says this."""
    fields = [("x-forwarded-for", value) for value in said]
    return client_address(Request("GET", "/", "/", "", Headers(fields)), peername, TRUSTED)


@pytest.mark.parametrize(
    ("peername", "said", "found"),
    [
        ("127.0.0.1:999", ["203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1:999", ["2001:db8::7"], "2001:db8::7"),
        ("[fd00::1]:999", ["203.0.113.7"], "203.0.113.7"),
        ("[::ffff:10.1.1.1]:999", ["203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1:999", ["203.0.113.7, 10.1.1.1"], "203.0.113.7"),
        ("127.0.0.1:999", ["203.0.113.7", "10.1.1.1"], "203.0.113.7"),
    ],
)
def test_a_trusted_proxy_is_believed(peername: str, said: list[str], found: str) -> None:
    """However many of them there are on the way, and in however many headers they say it."""
    assert ask(peername, *said) == found


@pytest.mark.parametrize(
    ("peername", "said", "found"),
    [
        ("203.0.113.9:5", ["198.51.100.1"], "203.0.113.9:5"),
        ("[2001:db8::1]:5", ["198.51.100.1"], "[2001:db8::1]:5"),
        ("127.0.0.1:999", ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1:999", ["198.51.100.1, nonsense, 10.1.1.1"], "10.1.1.1"),
        ("127.0.0.1:999", ["nonsense"], "127.0.0.1:999"),
        ("127.0.0.1:999", [], "127.0.0.1:999"),
        ("127.0.0.1:999", ["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
    ],
)
def test_nobody_else_is(peername: str, said: list[str], found: str) -> None:
    """What a client writes itself stands before what the proxies append."""
    assert ask(peername, *said) == found


def test_who_is_trusted_by_default() -> None:
    """Nobody."""
    request = Request("GET", "/", "/", "", Headers([("x-forwarded-for", "203.0.113.7")]))
    assert client_address(request, "127.0.0.1:9", ()) == "127.0.0.1:9"


@pytest.mark.parametrize("given", ["10.0.0.1/8", "localhost"])
def test_what_is_no_network(given: str) -> None:
    """The node does not start, and says so."""
    with pytest.raises(SettingsError, match=rf"^trusted_proxies: .*{given}.*: as in 10.0.0.0/8, or "):
        load({"name": "n1", "trusted_proxies": [given]}, {})
