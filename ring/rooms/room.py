"""One room at one node: its members there, and the joins that wait for its subscription."""

from collections.abc import Iterable

from ring.config import Policy
from ring.rooms.member import Member
from ring.transport.wheel import Timer


class Joining:
    """A join that waits for the subscription: of one session, with all frames that ask for it."""

    __slots__ = ("frame_ids", "member", "timer")

    def __init__(self, member: Member, timer: Timer) -> None:
        self.member = member
        self.timer = timer
        self.frame_ids: list[str] = []


class Room:
    """A room that has members at this node, or is about to.

    Attributes:
        members: by the number of their session.
        joining: the same of those who are not yet, or of members who ask again while nothing is heard.
        stood_on: the number of the subscriber's connection on which it stands; 0 while it does not.
    """

    __slots__ = ("_keeps_newest", "channel", "joining", "members", "name", "stood_on")

    def __init__(self, name: str, channel: bytes, policy: Policy) -> None:
        self.name = name
        self.channel = channel
        self.members: dict[int, Member] = {}
        self.joining: dict[int, Joining] = {}
        self.stood_on = 0
        self._keeps_newest = policy == "drop_oldest"

    def send(self, members: Iterable[Member], frame: bytes, without: Member | None) -> int:
        """Sends a frame to these members, by the room's policy. The path of every copy.

        Returns:
            How many older ones were dropped for it.
        """
        if self._keeps_newest:
            name = self.name
            return sum(member.offer(name, frame) for member in members if member is not without)
        for member in members:
            if member is not without:
                member.socket.send_frame(frame)
        return 0
