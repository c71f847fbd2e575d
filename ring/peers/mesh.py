"""The links of a node: one to every other member of the ring, and to guests.

Of two members the lower name dials, and goes on dialling while the other is in its view. The other's
listener asks `Mesh.door`. A guest is linked and no member: it is about to join, or was removed and lives on,
as a gateway for its clients. It dials everybody itself, and so does a member that finds itself cut off
(`dial_all`). A mesh is told of every view by its node; the router finds links and sends.
"""

import random
from collections.abc import Iterable
from typing import Literal

import structlog
import trio

from ring.cluster.view import Member, RingView
from ring.peers.dial import Greeting, connect
from ring.peers.link import HANDSHAKE_S, HIGH_WATER, PING_S, PeerLink, Receiver
from ring.peers.proof import Handshake, hello
from ring.peers.waiting import FRAME_BYTES
from ring.protocol.codes import BadRequest, CloseCode, ErrorCode
from ring.protocol.peer import PEER_PATH, SUBPROTOCOL, Hello
from ring.protocol.upgrade import Request
from ring.transport.handshake import Accept, Refuse
from ring.transport.pump import Pump

CONNECT_S = 2.0  # for the name and TCP
FIRST_BACKOFF_S = 0.02  # between dials; doubled with each one that fails,
LAST_BACKOFF_S = 1.0  # up to this

_SOCKET_BYTES = 2 * (HIGH_WATER + FRAME_BYTES)
"""A bound that a link's own never lets its socket come near to."""

DialOutcome = Literal["up", "refused", "timeout", "refused_by_peer"]

_logger = structlog.get_logger()


class _Dial:
    """The task that dials one incarnation of a member, and what came of it."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.outcome: DialOutcome | None = None
        self.shown = 0  # the epoch in the hello of a peer that then refused
        self.scope = trio.CancelScope()


class Mesh:
    """All peer links of a node. Its methods are to be called on Trio's thread.

    Args:
        pump: carries the links.
        me: this node.
        cluster: the cluster's name.
        secret: the cluster's secret; the same on every node.
        receiver: is told what the links bring.
        ping_s: how often a link is pinged; it is dead after `link.MISSES` pings without a sign of life.
        handshake_s: the time from the dial, or from the upgrade, to the end of the proof.

    Attributes:
        links: name -> link, of those that are up. For look-ups alone.
        epoch, members_hash: of the view that was entered last; on every frame.
    """

    def __init__(
        self,
        *,
        pump: Pump,
        me: Member,
        cluster: str,
        secret: bytes,
        receiver: Receiver,
        ping_s: float = PING_S,
        handshake_s: float = HANDSHAKE_S,
    ) -> None:
        self.links: dict[str, PeerLink] = {}
        self.epoch = 0
        self.members_hash = 0
        self.receiver = receiver
        self.ping_s = ping_s
        self.handshake_s = handshake_s
        self.wheel = pump.wheel
        self.wake = pump.flush_soon
        self.dirty: list[PeerLink] = []
        self._pump = pump
        self._me = me
        self._cluster = cluster
        self._secret = secret
        self._members: dict[str, Member] = {}
        self._dials: dict[str, _Dial] = {}
        self._dial_all = self._outside = False
        self._standing: set[PeerLink] = set()  # proven and not over: those in `links`, and those that retire
        self._complaints: dict[str, str] = {}
        self._linked = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._stopped = False
        pump.before_flush.append(self._flush)

    def dial_outcome(self, name: str) -> DialOutcome | None:
        """How it stands with the dialling of a peer.

        "refused": its machine answers that nobody listens. "timeout": no answer, or no way there.
        "refused_by_peer": something answered, and no link came of it. None: not known (yet), as with an
        unlinked peer of a lower name, since it is the one that dials but for `dial_all`.
        """
        if name in self.links:
            return "up"
        dial = self._dials.get(name)
        return None if dial is None else dial.outcome

    @property
    def outpaced(self) -> bool:
        """True if a member that was dialled showed a later ring, and refused: maybe another life of this node
        is in that."""
        return any(dial.shown > self.epoch for dial in self._dials.values())

    async def wait_linked(self, names: Iterable[str]) -> None:
        """Returns once there are links to all of `names` at the same moment; its own does not count."""
        wanted = set(names) - {self._me.name}
        await trio.lowlevel.checkpoint()
        while not wanted <= self.links.keys():
            await self._linked.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dials until it is cancelled, then says goodbye on every link. `update` may be called before."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for dial in self._dials.values():
                    nursery.start_soon(self._keep_dialled, dial)
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    self._nursery = None  # views may come until all has ended, and it takes no dial any more
        finally:
            self._stopped = True
            for link in list(self.links.values()):
                del self.links[link.name]
                link.retire(CloseCode.GOING_AWAY, "the node stops")

    def update(self, view: RingView) -> None:
        """Enters a view: links to its members, and keeps those to guests.

        To be called once the router routes by it, since batches that have waited for it are handed on from
        here; not from within a call of the receiver.
        """
        self.epoch = view.epoch
        self.members_hash = view.members_hash
        self._members = {member.name: member for member in view.members if member.name != self._me.name}
        self._complaints = {name: words for name, words in self._complaints.items() if name in self._members}
        for name, dial in list(self._dials.items()):
            member = self._members.get(name)
            if member is None or (member.incarnation, member.peer) != (
                dial.member.incarnation,
                dial.member.peer,
            ):
                dial.scope.cancel()
                del self._dials[name]
        for link in list(self.links.values()):
            member = self._members.get(link.name)
            # One that is ahead knows of a change that this view does not show yet.
            if link.epoch <= view.epoch and member is not None and member.incarnation != link.incarnation:
                link.drop(f"the ring has another incarnation: {member.incarnation}")
        mine = view.member(self._me.name)
        self._outside = mine is None or mine.incarnation != self._me.incarnation
        self._choose_dials()
        for link in list(self._standing):
            link.release()

    def dial_all(self, wanted: bool) -> None:
        """Has members of lower names dialled too, which leave it to themselves as long as all is well.

        For a node whose lease has lapsed: it must know whether its peers can be reached. Where both sides
        dial at the same time, the later link takes the place of the earlier one, and pauses of random length
        end what comes of that.
        """
        if wanted != self._dial_all:
            self._dial_all = wanted
            self._choose_dials()

    async def probe(self, member: Member) -> bool:
        """Dials a member once, beside the dials that make links, and hangs up.

        Returns True if its process is gone: nobody listens at its address, or another life of it answers.
        The time is the caller's to bound.
        """
        try:
            sock = await connect(member.peer)
        except ConnectionRefusedError:
            if member.name in self._dials:
                self._dials[member.name].outcome = "refused"
            return True
        except (OSError, BadRequest):
            return False
        mine = hello(self._cluster, self._me.name, self._me.incarnation, self.epoch)
        greeting = Greeting(Handshake(mine, self._secret, dials=member.name, admit=lambda _: "a probe"))
        theirs = await greeting.exchange(self._pump, sock, member.peer)
        known = (self._cluster, member.name)
        return (
            theirs is not None
            and (theirs.cluster, theirs.name) == known
            and theirs.incarnation != member.incarnation
        )

    def _choose_dials(self) -> None:
        for name, member in self._members.items():
            wanted = self._me.name < name or self._outside or self._dial_all
            if not wanted and name in self._dials:
                self._dials.pop(name).scope.cancel()  # a link that stands, stands
            elif wanted and name not in self._dials:
                dial = self._dials[name] = _Dial(member)
                if self._nursery is not None:
                    self._nursery.start_soon(self._keep_dialled, dial)

    # Who comes

    def door(self, request: Request, peername: str) -> Accept | Refuse:
        """For the listener at this node's peer address."""
        if request.path != PEER_PATH:
            return Refuse(
                404, ErrorCode.BAD_REQUEST, f"peers are linked at {PEER_PATH}; clients use the edge"
            )
        if SUBPROTOCOL not in request.subprotocols:
            return Refuse(400, ErrorCode.BAD_REQUEST, f"offer the sub-protocol {SUBPROTOCOL}")
        if self._stopped:
            return Refuse(503, ErrorCode.OWNER_UNAVAILABLE, "the node stops")
        return Accept(self._make_link(None), SUBPROTOCOL, FRAME_BYTES, _SOCKET_BYTES)

    def _make_link(self, dials: str | None) -> PeerLink:
        mine = hello(self._cluster, self._me.name, self._me.incarnation, self.epoch)
        return PeerLink(self, Handshake(mine, self._secret, dials=dials, admit=self._admit), name=dials or "")

    def _admit(self, theirs: Hello) -> str | None:
        """Refuses an incarnation that another has followed: what a node shows of epochs tells which is later.

        A name that is in no view yet is welcome: it has joined, and its frames will say so.
        """
        link, member = self.links.get(theirs.name), self._members.get(theirs.name)
        if link is not None and link.epoch > self.epoch:
            known, epoch = link.incarnation, link.epoch
        elif member is not None:
            known, epoch = member.incarnation, self.epoch
        else:
            return None
        if theirs.incarnation == known or theirs.epoch > epoch:
            return None
        return f"is incarnation {theirs.incarnation!r}, the ring has {known!r}: one of the two is out of date"

    # What links tell

    def proven(self, link: PeerLink) -> None:
        """Makes `link` the one to its node. An older one may be half-open: it must not stand in the way."""
        for other in list(self._standing):
            if other.name == link.name:
                other.drop("replaced by a newer link")
        self.links[link.name] = link
        self._standing.add(link)
        self._complaints.pop(link.name, None)
        if link.name in self._dials:
            self._dials[link.name].outcome = "up"
        self._linked.set()
        self._linked = trio.Event()
        _logger.info("peer linked", peer=link.name, incarnation=link.incarnation, address=link.address)
        self.receiver.link_up(link)

    def ended(self, link: PeerLink) -> None:
        """Forgets `link`, and tells the receiver if it had stood."""
        if link not in self._standing:
            return
        self._standing.remove(link)
        _logger.info("peer link down", peer=link.name, incarnation=link.incarnation)
        if self.links.get(link.name) is link:
            del self.links[link.name]
        if link.name in self._dials:
            self._dials[link.name].outcome = None
        self.receiver.link_down(link)

    def complain(self, link: PeerLink, words: str) -> None:
        """Logs why a link ended, or did not come about."""
        if link.incarnation:
            _logger.warning("peer link lost", peer=link.name, address=link.address, why=words)
        else:
            self._log_unlinked(link.name, link.address, words)

    def _log_unlinked(self, name: str, address: str, words: str) -> None:
        # Dials are repeated for as long as it takes: the log need not.
        known = name if name in self._members else ""
        if self._complaints.get(known) != words:
            self._complaints[known] = words
            _logger.warning("no peer link", peer=name, address=address, why=words)

    def _flush(self) -> None:
        dirty = self.dirty
        if not dirty:
            return
        self.dirty = []
        for link in dirty:
            try:
                link.flush()
            except Exception:
                _logger.exception("peer link failed", peer=link.name)
                link.drop("what was to be sent could not be encoded")

    # Whom we dial

    async def _keep_dialled(self, dial: _Dial) -> None:
        failures = 0
        with dial.scope:
            while True:
                try:
                    linked = await self._dial(dial)
                except Exception:
                    # Nobody expected it, and the next dial may do better: a node must not fall by one peer.
                    _logger.exception("dialling failed", peer=dial.member.name, address=dial.member.peer)
                    linked = False
                failures = 0 if linked else failures + 1
                pause = min(FIRST_BACKOFF_S * 2**failures, LAST_BACKOFF_S)
                if self._me.name > dial.member.name:
                    pause = LAST_BACKOFF_S  # the other side dials too, if it can
                await trio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads the dials, hides nothing

    async def _dial(self, dial: _Dial) -> bool:
        """Dials once; returns False if no link came of it, True once the link that did is over."""
        member = dial.member
        standing = self.links.get(member.name)
        if standing is not None and standing.incarnation == member.incarnation:
            # It was ahead of the view that this dial came with.
            await standing.over.wait()
            return True
        try:
            with trio.fail_after(CONNECT_S):
                sock = await connect(member.peer)
        except ConnectionRefusedError:
            dial.outcome = "refused"
            self._log_unlinked(member.name, member.peer, "nobody listens there: is the node running?")
            return False
        except (OSError, BadRequest, trio.TooSlowError) as error:
            dial.outcome = "timeout"
            words = str(error) or f"no answer within {CONNECT_S:g} s"
            self._log_unlinked(member.name, member.peer, f"cannot be reached: {words}")
            return False
        link = self._make_link(member.name)
        try:
            departure = self._pump.adopt(
                sock,
                link,
                host=member.peer,
                target=PEER_PATH,
                subprotocols=[SUBPROTOCOL],
                max_message=FRAME_BYTES,
                max_queued=_SOCKET_BYTES,
                handshake_s=2 * self.handshake_s,  # the link's own comes first
            )
        except OSError as error:  # it is broken already
            sock.close()
            link.on_close(CloseCode.ABNORMAL, str(error))
            dial.outcome = "refused_by_peer"
            return False
        try:
            await link.settled.wait()
            if link.incarnation:
                await link.over.wait()
                return True
            dial.outcome = "timeout" if link.timed_out else "refused_by_peer"
            theirs = link.handshake.peer
            if theirs is not None and (theirs.cluster, theirs.name) == (self._cluster, member.name):
                dial.shown = theirs.epoch
            return False
        finally:
            if not link.incarnation:
                link.retire(CloseCode.GOING_AWAY, "no longer dialled")
                departure.abort()
