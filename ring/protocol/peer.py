"""What two nodes say to each other: binary frames of MessagePack, each a batch (docs/architecture.md).

A batch carries its sender's epoch and the hash of the members it knows, so that news of a change of the ring
travels with whatever is said. Items are arrays with an integer tag: small, and decoded by msgspec in C.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from ring.protocol.codes import ErrorCode

SUBPROTOCOL = "ring.peer.v1"
PEER_PATH = "/v1/peer"
OLDEST_VERSION = 1
NEWEST_VERSION = 2
"""The range of peer protocols that this release speaks: one release back must work beside the current one. A
node that does not know a kind of item cannot read the batch it is in: what came with version 2 (`LeaseAsked`,
`Lease`) is sent to those alone that speak it."""
BATCH_BYTES = 256 * 1024
"""At most this much is put into one frame: a longer one would make everything behind it wait."""

Seq = tuple[int, int]


class Hello(Struct, array_like=True, tag=100):
    """The first frame of each side: who speaks, and a nonce for the other's proof."""

    cluster: str
    name: str
    incarnation: str
    oldest: int  # the range of peer protocol versions that the node speaks
    newest: int
    epoch: int  # of the ring that the node knows: tells a name's newer incarnation from an older one
    nonce: bytes


class Proof(Struct, array_like=True, tag=101):
    """HMAC over both hellos, by the cluster's secret."""

    mac: bytes


class Send(Struct, array_like=True, tag=1, gc=False):
    """Gateway to owner: a direct message.

    `ref` is the gateway's name for it, 0 if no receipt is wanted; `session` the sending one where the sender
    is the recipient too (it gets no copy), else ""; `ttl_ms` 0 where the sender set no limit.
    """

    ref: int
    sender: str | None
    id: str | None
    to: str
    data: bytes
    sent_at: int
    again: bool
    session: str
    ttl_ms: int


class Deliver(Struct, array_like=True, tag=2, gc=False):
    """Owner to gateway: a whole `message` for session `handle`."""

    handle: int
    epoch: int
    number: int
    body: bytes
    tracked: bool  # to be acknowledged


class Ack(Struct, array_like=True, tag=3, gc=False):
    """Gateway to owner: session `handle` has everything up to this position."""

    handle: int
    epoch: int
    number: int
    by: Literal["client", "pong"]


class Receipt(Struct, array_like=True, tag=4, gc=False):
    """Owner to gateway: what became of the message that the gateway calls `ref`."""

    ref: int
    status: Literal["delivered", "queued", "failed"]
    by: Literal["client", "pong"] | None
    code: ErrorCode | None
    message: str | None


class Attach(Struct, array_like=True, tag=5):
    """Gateway to owner: session `handle` of `user` is on this gateway.

    The gateway gives the session a new `handle` with each attachment: what is still under way for an earlier
    one finds nobody. `sent` and `acked` say how far the session got under an earlier owner or link; None for
    a new session, which may `resume` from a position that its client remembers and is answered by `Attached`.
    """

    handle: int
    user: str
    device: str
    session: str
    address: str
    since_ms: int  # when it connected: of two sessions of one device the later stays
    sent: Seq | None
    acked: Seq | None
    by: Literal["client", "pong"]  # how this session acknowledges
    resume: str | None
    earlier: list[Seq] = []  # how far it got in epochs before that of `sent`: the last few


class Attached(Struct, array_like=True, tag=6, gc=False):
    """Owner to gateway: session `handle` is known and may be welcomed. What it gets comes after `start`."""

    handle: int
    start: Seq
    resumed: bool | Literal["gap"]


class Detach(Struct, array_like=True, tag=7, gc=False):
    """Gateway to owner: session `handle` has ended; `clean` if its client said goodbye."""

    handle: int
    clean: bool


class Expel(Struct, array_like=True, tag=8, gc=False):
    """Owner to gateway: close session `handle` (replaced by the same device elsewhere, or too slow)."""

    handle: int
    code: int
    reason: str


class Entered(Struct, array_like=True, tag=9, gc=False):
    """The sender routes by this epoch; nothing after this frame was routed by an earlier one."""

    epoch: int


class Handed(Struct, array_like=True, tag=10, gc=False):
    """The sender has handed over all that it lost at this epoch."""

    epoch: int


class Letter(Struct, array_like=True, gc=False):
    """One message of a mailbox as it is handed over. `status` is what its sender has been told, None while
    nobody has acknowledged it; a `queued` one with a `home` has not been acknowledged either."""

    epoch: int
    number: int
    sender: str | None
    id: str | None
    body: bytes | None  # None: only its fate is still remembered
    age_ms: int
    patience_ms: int
    seen: bool
    origin: str
    status: Literal["delivered", "queued", "failed"] | None
    by: Literal["client", "pong"] | None
    code: ErrorCode | None
    message: str | None
    waiters: list[tuple[str, int]]  # (gateway, ref): who is owed a receipt
    home: Seq | None = None  # the sequence under which Redis keeps it
    expires_ms: int = 0  # what is left of its `ttl_s`, 0 if it has none
    found: bool = False  # read from Redis, and sent to no session since


class HandOver(Struct, array_like=True, tag=11):
    """Old owner to new: a user's mailbox, or a part of it (in order)."""

    user: str
    letters: list[Letter]
    floor: Seq  # nothing at or before this position is in the history
    linger_ms: int  # for how long the user is still waited for
    left: int = 0  # with the last part: letters that the old owner left to Redis alone


class Moved(Struct, array_like=True, tag=12, gc=False):
    """To the gateway of a message whose recipient this node does not own at `epoch`: route it anew."""

    ref: int
    epoch: int


class Astray(Struct, array_like=True, tag=18, gc=False):
    """To the gateway of a session whose user this node does not own at `epoch`: attach it anew."""

    handle: int
    epoch: int


class MembersWanted(Struct, array_like=True, tag=13, gc=False):
    """Asks for the members as the receiver knows them."""


class MemberEntry(Struct, array_like=True, frozen=True, gc=False):
    """A member of the ring, as Redis and peers describe it."""

    name: str
    incarnation: str
    edge: str
    peer: str
    api: str
    weight: int
    state: Literal["up", "draining"]
    version: str


class Members(Struct, array_like=True, tag=14):
    """The members of an epoch, and the epoch before it (0: not known)."""

    epoch: int
    members: list[MemberEntry]
    previous: int = 0


class Reconciled(Struct, array_like=True, tag=15, gc=False):
    """Gateway to owner, after a new link: every session of mine that you own has been attached again."""


class WhoIs(Struct, array_like=True, tag=16, gc=False):
    """Asks the owner of `user` for the user's sessions."""

    ref: int
    user: str


class SessionEntry(Struct, array_like=True, gc=False):
    """A session as its owner knows it."""

    session: str
    device: str
    gateway: str
    address: str
    unacknowledged: int


class ThisIs(Struct, array_like=True, tag=17):
    """Answers `WhoIs`; `sessions` is None if the asked node does not own the user."""

    ref: int
    sessions: list[SessionEntry] | None


class LeaseAsked(Struct, array_like=True, tag=19, gc=False):
    """Asks when the receiver renewed its lease: the sender's own is about to lapse."""


class Lease(Struct, array_like=True, tag=20, gc=False):
    """Answers `LeaseAsked`: how old the lease is, and for how long it had not lapsed when it was renewed."""

    age_ms: int
    run_ms: int


Item = (
    Send
    | Deliver
    | Ack
    | Receipt
    | Attach
    | Attached
    | Detach
    | Expel
    | Entered
    | Handed
    | HandOver
    | Moved
    | Astray
    | MembersWanted
    | Members
    | Reconciled
    | WhoIs
    | ThisIs
    | LeaseAsked
    | Lease
)


class Batch(Struct, array_like=True):
    """One frame between peers."""

    epoch: int
    members_hash: int
    items: list[Item]


encode = msgspec.msgpack.Encoder().encode
decode_batch = msgspec.msgpack.Decoder(Batch).decode
decode_hello = msgspec.msgpack.Decoder(Hello | Proof).decode
