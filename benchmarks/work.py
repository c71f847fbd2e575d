"""What `make bench` has every server do, and how often."""

from dataclasses import dataclass

from ring.bench.direct import DirectPlan
from ring.bench.echo_load import Load
from ring.bench.mailbox import DEPTHS, MailboxPlan
from ring.bench.rooms import RoomPlan
from ring.bench.storm import IdlePlan

ECHO_RATE = 500


@dataclass(frozen=True)
class Work:
    """One size of it.

    Attributes:
        repetitions: how often everything is done; the order of the servers turns with each.
        sizes: nodes of the clusters that carry direct messages.
        open_size: of the one that does so at a rate.
        room_size: of the one with the room.
        direct: without the warm-up, which grows with the nodes: each has its own compiler to warm.
        open: at a rate.
        rooms: one room.
        idle: on one node.
        many_idle: the same, of Ring alone.
        echo: seconds of each echo load.
        mailbox: stored messages, of Ring alone.
        mailbox_size: nodes of the cluster that stores them.
    """

    repetitions: int
    sizes: tuple[int, ...]
    open_size: int
    room_size: int
    direct: DirectPlan
    open: DirectPlan
    rooms: RoomPlan
    idle: IdlePlan
    many_idle: IdlePlan
    echo: float
    mailbox: MailboxPlan
    mailbox_size: int

    def warm_up(self, nodes: int) -> float:
        """The share of the messages that is sent before those that count."""
        return 0.2 * nodes

    def echo_loads(self) -> dict[str, Load]:
        """By name."""
        return {"echo": Load(seconds=self.echo), "echo open": Load(seconds=self.echo, rate=ECHO_RATE)}

    def words(self) -> dict[str, str]:
        """What each load does."""
        direct, at_rate, rooms, idle, mailbox = self.direct, self.open, self.rooms, self.idle, self.mailbox
        return {
            "direct": f"{direct.clients} users; {direct.senders} of them keep {direct.in_flight} messages of "
            f"{direct.size} bytes each under way to random others; {direct.messages} messages are counted",
            "open": f"{at_rate.rate:g} messages/s from all {at_rate.clients} users in turn, for "
            f"{at_rate.duration_s:g} s; {self.open_size} nodes; latency from when a message was due",
            "rooms": f"{rooms.members} members on {self.room_size} nodes, {rooms.publishes} messages of "
            f"{rooms.size} bytes from one publisher outside, {rooms.in_flight} under way",
            "idle": f"{idle.connections} connections to one node, each a user of its own; no TLS",
            "many idle": f"{self.many_idle.connections} connections to one node of Ring",
            "mailbox": f"{mailbox.mailboxes} users who are not there get {mailbox.messages} message of "
            f"{mailbox.size} bytes each, and a fifth as many messages go to mailboxes of {DEPTHS[0]}, and of "
            f"{DEPTHS[1]}; then {mailbox.connections} of the users connect to their owners, "
            f"{mailbox.concurrency} at once, while others send {mailbox.live:g} messages/s to each other; "
            f"{self.mailbox_size} nodes",
            "echo": f"100 connections, 100 bytes, {self.echo:g} s; each sends again when its message is back",
            "echo open": f"the same at {ECHO_RATE} messages/s over all connections",
        }


FULL = Work(
    repetitions=3,
    sizes=(2, 4, 8),
    open_size=8,
    room_size=4,
    direct=DirectPlan(messages=30_000),
    open=DirectPlan(senders=400, rate=500, messages=None, duration_s=4.0),
    rooms=RoomPlan(publishes=400),
    idle=IdlePlan(connections=5000, hold_s=2.0),
    many_idle=IdlePlan(connections=18_000, hold_s=2.0),
    echo=3.0,
    mailbox=MailboxPlan(empty=False),
    mailbox_size=4,
)
QUICK = Work(
    repetitions=1,
    sizes=(2,),
    open_size=2,
    room_size=2,
    direct=DirectPlan(clients=100, messages=5_000),
    open=DirectPlan(clients=100, senders=100, rate=500, messages=None, duration_s=1.0),
    rooms=RoomPlan(members=50, publishes=100),
    idle=IdlePlan(connections=500, hold_s=0.5),
    many_idle=IdlePlan(connections=1000, hold_s=0.5),
    echo=0.5,
    mailbox=MailboxPlan(mailboxes=5000, connections=500, empty=False),
    mailbox_size=2,
)
