"""Addresses as people write them: "host:port", with an IPv6 host in brackets."""

import socket

from ring.protocol.codes import BadRequest, RingError


class CannotListen(RingError):
    """An address that this machine cannot be reached by; another process may have it."""


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[::1]:port".

    Raises:
        BadRequest: it is not such an address.
    """
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise BadRequest(f"not an address: {address!r}; write host:port, or [::1]:port for IPv6")
    return host, int(port)


def join_address(name: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """The other way round, from what the `socket` module calls an address."""
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def open_listener(address: str) -> socket.socket:
    """A non-blocking socket that is bound to `address` and does not listen yet; port 0 takes a free one.

    Raises:
        BadRequest: it is not an address.
        CannotListen: it cannot be listened at.
    """
    host, port = split_address(address)
    try:
        family, kind, protocol, _, name = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CannotListen(f"cannot listen at {address}: {error.strerror}") from error
    try:
        # Not SO_REUSEPORT: a second node at the same address is a mistake that must be seen.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(name)
    except OSError as error:
        sock.close()
        raise CannotListen(f"cannot listen at {address}: {error.strerror}") from error
    return sock
