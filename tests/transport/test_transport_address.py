"""Addresses, and what cannot be listened at."""

import socket

import pytest

from ring.protocol.codes import BadRequest
from ring.transport.address import CannotListen, join_address, open_listener, split_address


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("127.0.0.1:80", "127.0.0.1", 80), ("[::1]:0", "::1", 0), ("n1.lan:65535", "n1.lan", 65535)],
)
def test_an_address_is_split_and_joined(address: str, host: str, port: int) -> None:
    """Both ways; an IPv6 host is in brackets."""
    assert split_address(address) == (host, port)
    assert join_address((host, port)) == address


@pytest.mark.parametrize(
    "address", ["", "80", ":80", "host", "host:", "host:http", "host:-1", "host:65536", "::1:80"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    """With a message that shows how to write one."""
    with pytest.raises(BadRequest, match="write host:port"):
        split_address(address)


def test_an_address_in_use_cannot_be_listened_at() -> None:
    """Not even with SO_REUSEADDR: two nodes must not share a port by mistake."""
    with open_listener("127.0.0.1:0") as first:
        first.listen()
        with pytest.raises(CannotListen, match="in use"):
            open_listener(join_address(first.getsockname()))


def test_a_host_that_is_not_known_cannot_be_listened_at() -> None:
    """Names are looked up when a listener is opened, at no other time."""
    with pytest.raises(CannotListen, match=r"cannot listen at nowhere\.invalid:1"):
        open_listener("nowhere.invalid:1")


def test_a_port_can_be_taken_again_at_once() -> None:
    """Though connections of the process before linger in the kernel."""
    with open_listener("127.0.0.1:0") as listener:
        listener.listen()
        address = listener.getsockname()
        with socket.create_connection(address):
            listener.setblocking(True)
            listener.accept()[0].close()
    open_listener(join_address(address)).close()
