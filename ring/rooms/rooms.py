"""The rooms that this node's sessions are in: who gets a copy of what, and which channels are listened to.

A room is a Redis channel; a node subscribes to it while one of its sessions is a member, or is about to be.
All copies come by Redis, those of this node's own publishes too: so every member sees the messages of a room
in one order. Commands are plain calls from the pump's tick; one task hands out what the subscriber brings.
"""

from collections.abc import Sequence
from functools import partial
from time import time
from typing import NamedTuple, NoReturn

import structlog
import trio
from msgspec import Raw

from ring.protocol import broadcast, client
from ring.protocol.broadcast import Broadcast, NoBroadcast
from ring.protocol.codes import ErrorCode
from ring.protocol.websocket import TEXT, encode_frame
from ring.rooms.member import Member
from ring.rooms.policy import Policies
from ring.rooms.publisher import ANSWER_S, Publisher
from ring.rooms.room import Joining, Room
from ring.store.client import Redis
from ring.store.keys import Keys
from ring.store.subscriber import Broke, Event, Missed, Published, Subscriber
from ring.transport.wheel import TimerWheel

STEP_COPIES = 2000
"""Copies between two turns of the other tasks: some milliseconds, and as much again when they are flushed."""

HEAVY_BYTES = 8192
"""A copy of so many bytes counts twice, of twice as many three times: the kernel has to copy it."""

TAKEN = 256
"""Events asked of the subscriber at a time."""

UNAVAILABLE = "rooms do not work now: Redis is away"
NOT_STANDING = "the room could not be joined in time: Redis does not answer"
LEFT = "the room was left before it was joined"
GAP = "messages of this room may be missing: the connection to Redis was away, or the node was too slow"

_log = structlog.get_logger()


class _Handout(NamedTuple):
    """A frame for members of a room; `without` one, perhaps."""

    room: Room
    frame: bytes
    some: Sequence[Member] | None = None  # else all that it has
    without: Member | None = None


class Rooms:
    """The rooms of a node.

    Args:
        node: its name.
        keys: of the cluster.
        wheel: for the joins that take too long.
        policies: what becomes of messages that a member reads too slowly.
        rooms_per_session: how many rooms a session may be in.

    Attributes:
        rooms: that have members here, or are being joined, by channel.
        publisher: what is on its way to Redis.
        memberships: of this node's sessions.
        standing: subscriptions that stand.
        copies: of messages handed to members' sockets, or to their backlogs.
        dropped_slow_member: copies that gave way in a backlog.
        undecodable: payloads that this release cannot read.
        gaps_told: how often a member was told that messages of a room may be missing.
    """

    def __init__(
        self, *, node: str, keys: Keys, wheel: TimerWheel, policies: Policies, rooms_per_session: int
    ) -> None:
        self.rooms: dict[bytes, Room] = {}
        self.publisher = Publisher()
        self.rooms_per_session = rooms_per_session
        self.memberships = 0
        self.standing = 0
        self.copies = 0
        self.dropped_slow_member = 0
        self.undecodable = 0
        self.gaps_told = 0
        self._node = node
        self._keys = keys
        self._wheel = wheel
        self._policies = policies
        self._subscriber: Subscriber | None = None  # while `run` runs
        self._handing_out = False
        self._left: set[bytes] = set()  # channels given up since the events were taken that are handed out

    @property
    def dropped(self) -> dict[str, int]:
        """Messages and copies that did not reach a member, by reason."""
        return {
            "slow_member": self.dropped_slow_member,
            "slow_node": 0 if self._subscriber is None else self._subscriber.dropped,
            "undecodable": self.undecodable,
        }

    # --- commands of sessions

    def join(self, member: Member, name: str, frame_id: str) -> None:
        """Makes a session a member; it is told once all that is published from then on reaches it."""
        channel = self._keys.channel(name)
        if self._subscriber is None or not self._subscriber.connected:
            member.refuse(frame_id, ErrorCode.ROOMS_UNAVAILABLE, UNAVAILABLE)
            return
        if channel not in member.channels:
            if len(member.channels) >= self.rooms_per_session:
                message = f"at most {self.rooms_per_session} rooms: leave one"
                member.refuse(frame_id, ErrorCode.TOO_MANY_ROOMS, message)
                return
            member.channels.add(channel)
        room = self.rooms.get(channel)
        if room is None:
            room = self.rooms[channel] = Room(name, channel, self._policies.of(name))
            self._subscriber.subscribe(channel)
        if room.stood_on == self._subscriber.connections_made:
            self._admit(room, member)
            member.confirm(frame_id)
            return
        joining = room.joining.get(member.sid)
        if joining is None:
            timer = self._wheel.call_later(ANSWER_S, partial(self._give_up, room, member))
            joining = room.joining[member.sid] = Joining(member, timer)
        joining.frame_ids.append(frame_id)
        member.unanswered += 1

    def leave(self, member: Member, name: str, frame_id: str) -> None:
        """Ends a membership; nothing of the room reaches the session behind the answer."""
        channel = self._keys.channel(name)
        if channel not in member.channels:
            member.refuse(frame_id, ErrorCode.NOT_JOINED, "not a member of this room")
            return
        room = self.rooms[channel]
        for joined_by in self._remove(room, member):
            member.refuse(joined_by, ErrorCode.NOT_JOINED, LEFT)
        member.forget(name)
        member.confirm(frame_id)

    def publish(self, member: Member, name: str, frame_id: str, data: bytes, *, echo: bool) -> None:
        """Publishes to a room; the session is told when Redis has taken it."""
        message = client.Room(name, member.user, frame_id, Raw(data), round(time() * 1000))
        without = broadcast.NOBODY if echo else member.sid
        payload = broadcast.encode(Broadcast(self._node, without, client.encode(message)))
        self.publisher.publish(member, frame_id, self._keys.channel(name), payload)

    def close(self, member: Member) -> None:
        """The session is over: it leaves all its rooms."""
        for channel in tuple(member.channels):
            self._remove(self.rooms[channel], member)

    def _admit(self, room: Room, member: Member) -> None:
        if member.sid not in room.members:
            room.members[member.sid] = member
            self.memberships += 1

    def _remove(self, room: Room, member: Member) -> list[str]:
        """Ends a membership, and joins under way: returns the frames that have no answer."""
        member.channels.discard(room.channel)
        if room.members.pop(member.sid, None) is not None:
            self.memberships -= 1
        frame_ids = self._end_joining(room, member)
        self._drop_if_empty(room)
        return frame_ids

    def _end_joining(self, room: Room, member: Member) -> list[str]:
        joining = room.joining.pop(member.sid, None)
        if joining is None:
            return []
        joining.timer.cancel()
        member.unanswered -= len(joining.frame_ids)
        return joining.frame_ids

    def _give_up(self, room: Room, member: Member) -> None:
        """A join took too long. Who was a member before stays one."""
        frame_ids = self._end_joining(room, member)
        if member.sid not in room.members:
            member.channels.discard(room.channel)
            self._drop_if_empty(room)
        for frame_id in frame_ids:
            member.refuse(frame_id, ErrorCode.ROOMS_UNAVAILABLE, NOT_STANDING)

    def _drop_if_empty(self, room: Room) -> None:
        if room.members or room.joining:
            return
        del self.rooms[room.channel]
        if room.stood_on:
            self.standing -= 1
        if self._subscriber is not None:
            self._subscriber.unsubscribe(room.channel)
        if self._handing_out:
            self._left.add(room.channel)

    # --- what comes from Redis

    async def run(self, redis: Redis, subscriber: Subscriber) -> None:
        """Connects to Redis for rooms, publishes and hands out, until cancelled.

        Args:
            redis: of the node, which somebody else runs.
            subscriber: which is run here.

        Raises:
            StoreRefused: Redis will not have us.
        """
        self._subscriber = subscriber
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(subscriber.run)
                nursery.start_soon(self.publisher.run, redis)
                nursery.start_soon(self._hand_out_all, subscriber)
        finally:
            self._subscriber = None

    async def _hand_out_all(self, subscriber: Subscriber) -> NoReturn:
        """Hands out what the subscriber brings, in steps: nothing else of the node has to wait for it."""
        left = STEP_COPIES
        while True:
            events = await subscriber.take(TAKEN)
            # It dials again only once we have taken that it broke: whatever came is of this connection.
            connection = subscriber.connections_made
            self._handing_out = True
            for event in events:
                handout = self._on_event(event, connection)
                left -= 1
                if handout is not None:
                    weight = 1 + len(handout.frame) // HEAVY_BYTES
                    if handout.some is None and len(handout.room.members) * weight <= left:
                        left -= self._hand_out(handout) * weight
                    else:
                        left = await self._hand_out_in_steps(handout, weight, left)
                if left <= 0:
                    await trio.lowlevel.checkpoint()
                    left = STEP_COPIES
            self._handing_out = False
            self._left.clear()

    def _hand_out(self, handout: _Handout) -> int:
        """To all members of the room. Returns how many there are."""
        members = handout.room.members
        self.dropped_slow_member += handout.room.send(members.values(), handout.frame, handout.without)
        return len(members)

    async def _hand_out_in_steps(self, handout: _Handout, weight: int, left: int) -> int:
        """To more members than this step has copies left for. Returns how many the last step has left."""
        room, frame, some, without = handout
        members = list(room.members.values()) if some is None else some
        done = 0
        while True:
            step = members[done : done + max(left // weight, 1)]
            done += len(step)
            # Others had their turn in between: who has left gets nothing more.
            there = [member for member in step if room.members.get(member.sid) is member]
            self.dropped_slow_member += room.send(there, frame, without)
            await trio.lowlevel.checkpoint()
            if done >= len(members):
                return STEP_COPIES
            left = STEP_COPIES

    def _on_event(self, event: Event, connection: int) -> _Handout | None:
        if isinstance(event, Published):
            return self._on_published(event)
        if isinstance(event, Broke):
            for known in self.rooms.values():
                known.stood_on = 0
            self.standing = 0
            return None
        room = self._room(event.channel)
        if room is None:
            return None
        if isinstance(event, Missed):
            return self._tell_gap(room)
        told = self._tell_gap(room) if event.again else None
        self.standing += not room.stood_on
        room.stood_on = connection
        for joining in tuple(room.joining.values()):
            self._admit(room, joining.member)
            for frame_id in self._end_joining(room, joining.member):
                joining.member.confirm(frame_id)
        return told

    def _room(self, channel: bytes) -> Room | None:
        """The room that an event is about; None if it was left meanwhile, even if it was joined again."""
        return None if channel in self._left else self.rooms.get(channel)

    def _on_published(self, event: Published) -> _Handout | None:
        room = self._room(event.channel)
        if room is None:
            return None
        try:
            published = broadcast.decode(event.payload)
        except NoBroadcast as error:
            if not self.undecodable:
                _log.error("a room's message cannot be read: dropped", room=room.name, reason=str(error))
            self.undecodable += 1
            return None
        without = room.members.get(published.session) if published.node == self._node else None
        self.copies += len(room.members) - (without is not None)
        return _Handout(room, encode_frame(TEXT, published.body), None, without)

    def _tell_gap(self, room: Room) -> _Handout:
        """For those who are members now: who joins later has missed nothing."""
        members = list(room.members.values())
        self.gaps_told += len(members)
        code = ErrorCode.ROOMS_UNAVAILABLE
        error = client.Error(code, GAP, code.retryable, room=room.name)
        return _Handout(room, encode_frame(TEXT, client.encode(error)), members)
