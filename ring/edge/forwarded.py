"""Where a client really is, behind a balancer: what `X-Forwarded-For` says, if somebody trusted says it.

The same trust lets a balancer say it before the request, by the PROXY protocol (`ring.protocol.proxy`).

Each proxy on the way appends the address that it was reached from. So the header is read from its end: what a
trusted proxy has appended is believed, and what stands before the first address that is not trusted was
written by nobody knows whom.
"""

from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address

from ring.config import Network
from ring.protocol.upgrade import Request


def client_address(request: Request, peername: str, trusted: Sequence[Network]) -> str:
    """The address of a client: the peer's "ip:port", or the IP that trusted proxies say it came from."""
    if not is_trusted(peername, trusted):
        return peername
    nearest = peername
    for hop in reversed(request.headers.tokens("x-forwarded-for")):
        if not _is_address(hop):
            break
        nearest = hop
        if not _is_in(hop, trusted):
            break
    return nearest


def is_trusted(peername: str, trusted: Sequence[Network]) -> bool:
    """Whether a peer, by its "ip:port", is believed."""
    return bool(trusted) and _is_in(peername.rpartition(":")[0].strip("[]"), trusted)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_in(text: str, trusted: Sequence[Network]) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in trusted)
