"""What the sessions of a node work with; made by `node`, held by every session."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ring.edge.census import Census
from ring.mailbox.owner import Mailboxes
from ring.mailbox.pending import Pending
from ring.rooms.rooms import Rooms
from ring.router.attachments import Attachments
from ring.router.router import Router
from ring.transport.wheel import TimerWheel

if TYPE_CHECKING:
    from ring.edge.session import ClientSession


@dataclass(frozen=True, slots=True)
class Gateway:
    """What all sessions of a node have in common; sizes in bytes, times in seconds.

    `due` takes sessions that want to ping at the end of the tick; `census` counts.
    """

    node: str
    router: Router
    attachments: Attachments
    mailboxes: Mailboxes
    pending: Pending
    rooms: Rooms
    wheel: TimerWheel
    due: list["ClientSession"]
    message_bytes: int
    in_flight: int
    output_bytes: int
    heartbeat_s: float
    census: Census = field(default_factory=Census)
