"""What a node is made of: its parts, the order in which they start, and the order in which it leaves.

    node
    +-- redis        the connection to Redis            store
    +-- rooms        publishes, and hands out           rooms
    +-- spill        letters to Redis and back          mailbox
    +-- pump         every socket of the node           transport
    +-- api          HTTP                               api
    +-- mesh         a task per peer that it dials      peers
    +-- membership   the lease, and the view            cluster
    +-- deaths       whether peers that are lost live   router

The pump's tick does all the work on messages; the tasks bring it news of the ring.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from secrets import token_hex

import structlog
import trio

from ring import __version__
from ring.api import app as api
from ring.api.metrics import Reading
from ring.cluster.lease import OWNING, Standing
from ring.cluster.membership import Membership
from ring.cluster.scripts import set_weight
from ring.cluster.view import Member, RingView
from ring.config import EMBEDDED, Settings
from ring.edge import farewell
from ring.edge.admission import Admission, Believing
from ring.edge.gateway import Gateway
from ring.edge.session import ClientSession
from ring.mailbox.mailbox import WINDOW_BYTES
from ring.mailbox.owner import Mailboxes
from ring.mailbox.pending import Pending
from ring.mailbox.spill import Spill
from ring.peers.link import PeerLink
from ring.peers.mesh import Mesh
from ring.protocol import peer
from ring.rooms.policy import Policies
from ring.rooms.rooms import Rooms
from ring.router.attachments import Attachments
from ring.router.death_watch import DeathWatch
from ring.router.lease_watch import LeaseWatch
from ring.router.router import Router
from ring.router.routing import Routing
from ring.router.transition import Transition
from ring.router.whois import WhoIs
from ring.store.client import Redis
from ring.store.embedded import EmbeddedServer
from ring.store.keys import Keys
from ring.store.subscriber import Subscriber
from ring.telemetry.numbers import Telemetry
from ring.telemetry.table import readings
from ring.transport.pump import Pump

SWEEP_S = 0.25
"""How often messages without an answer are looked through."""

HAND_OVER = 0.75
"""The part of `drain_timeout_s` in which a draining node hands over; the rest is for its clients."""

FAREWELL_S = 2.0
"""How long a leaving node waits for Redis to note it."""

_log = structlog.get_logger()


class Node:
    """A node of the cluster. `run` serves until it is cancelled; `drain` empties it first.

    Args:
        settings: see docs/reference/configuration.md.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = settings.name
        self.incarnation = token_hex(8)
        self.pump = Pump()
        self.addresses = {"edge": "", "peer": "", "api": ""}
        self._serving = False
        self._draining = False
        self._disowned = False
        self.drain_asked = trio.Event()
        """Set by whoever wants the node to drain and end, as SIGTERM does."""
        self._settled = trio.Event()
        self._handing_over = trio.CancelScope()
        self._due: list[ClientSession] = []
        self._redis: Redis
        self._letters: Redis  # a connection of its own: the lease waits for no mailbox
        self._membership: Membership
        self.mesh: Mesh
        self.spill = (
            Spill(connected=lambda: self._letters.connected, away_s=lambda: self._letters.away_s)
            if settings.mailbox_messages
            else None
        )
        self.mailboxes = Mailboxes(
            node=self.name,
            incarnation=self.incarnation,
            wheel=self.pump.wheel,
            notify=lambda *fate: self.router.notify(*fate),
            spill=self.spill,
            linger_s=settings.linger_s,
            spill_after_s=settings.spill_after_s,
            # Half of what a session's output may hold: acknowledged late is not read late.
            window_bytes=min(WINDOW_BYTES, settings.output_bytes // 2),
        )
        self.mailboxes.fenced = lambda: self._membership.renew_soon()
        self.pending = Pending(send_timeout_s=settings.send_timeout_s)
        self.rooms = Rooms(
            node=self.name,
            keys=Keys(settings.cluster),
            wheel=self.pump.wheel,
            policies=Policies(settings.room_policies()),
            rooms_per_session=settings.rooms_per_session,
        )
        self.routing = Routing(node=self.name, incarnation=self.incarnation, links={})
        self.attachments = Attachments(self.routing, self.mailboxes)
        self.router = Router(self.routing, self.mailboxes, self.pending)
        # As of `Receiver`; no method of the node, since every batch comes here.
        self.on_items = self.routing.on_items
        self.transition = Transition(
            self.routing,
            self.mailboxes,
            self.attachments,
            self.router,
            self.pump.wheel,
            on_settled=lambda: self._settled.set(),
        )
        self._lease = LeaseWatch(
            self.routing,
            self.pump.wheel,
            ttl_s=settings.ttl_s,
            dial_outcome=lambda name: self.mesh.dial_outcome(name),
            outpaced=lambda: self.mesh.outpaced,
            on_standing=self._on_standing,
        )
        self.pump.before_tick.append(self._lease.check)
        self.deaths = DeathWatch(
            self.routing,
            probe=lambda member: self.mesh.probe(member),
            suspect=lambda member: self._membership.suspect(member),
            renew=lambda: self._membership.renew_soon(),
            go_on_without=lambda dead, disputed: self._membership.go_on_without(dead, disputed=disputed),
            standing=lambda: self._lease.standing,
            ttl_s=settings.ttl_s,
        )
        self._whois = WhoIs(self.routing, self.mailboxes)
        self.routing.handle(
            peer.MembersWanted, lambda link, item: link.send_urgent(self._membership.document())
        )
        self.routing.handle(peer.Members, lambda link, item: self._membership.offer(item))
        self.admission = Admission(
            authentication=Believing(),
            gateway=Gateway(
                node=self.name,
                router=self.router,
                attachments=self.attachments,
                mailboxes=self.mailboxes,
                pending=self.pending,
                rooms=self.rooms,
                wheel=self.pump.wheel,
                due=self._due,
                message_bytes=settings.message_bytes,
                in_flight=settings.in_flight,
                output_bytes=settings.output_bytes,
                heartbeat_s=settings.heartbeat_s,
            ),
            origins=settings.allow_origin,
            max_connections=settings.max_connections,
            trusted=settings.trusted_networks(),
        )
        self.telemetry = Telemetry(self)
        self.pump.before_flush.append(self._ping_due)

    # --- life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Joins the cluster and serves; started when clients may come.

        Raises:
            RingError: the cluster refuses the node, or a setting cannot be had (an address in use, say).
        """
        settings = self.settings
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            url = settings.redis
            if url == EMBEDDED:
                url = (await stack.enter_async_context(EmbeddedServer())).url
            self._redis = redis = Redis.from_url(url, client_name=f"ring-{self.name}")
            nursery.start_soon(redis.run)
            if self.spill is not None:
                self._letters = Redis.from_url(url, client_name=f"ring-{self.name}-mailboxes")
                nursery.start_soon(self._letters.run)
                nursery.start_soon(self.spill.serve, self._letters, settings, self.pump.flush_soon)
            subscriber = Subscriber.from_url(url, client_name=f"ring-{self.name}-rooms")
            nursery.start_soon(self.rooms.run, redis, subscriber)
            edge = self.admission.listen(self.pump, settings.edge)
            peers = self.pump.listen(
                settings.peer, lambda request, name: self.mesh.door(request, name), start=False
            )
            self.telemetry.edge = edge
            self.telemetry.store = {"commands": redis, "rooms": subscriber}
            if self.spill is not None:
                self.telemetry.store["mailboxes"] = self._letters
            await nursery.start(self.pump.run)
            application = api.application(self, settings.api_key())
            api_address: str = await nursery.start(api.run, application, settings.api)
            self.addresses = {"edge": edge.address, "peer": peers.address, "api": api_address}
            me = Member(
                name=self.name,
                incarnation=self.incarnation,
                edge=settings.edge_advertise or edge.address,
                peer=settings.peer_advertise or peers.address,
                api=settings.api_advertise or api_address,
                weight=settings.weight,
                state="up",
                version=__version__,
            )
            self.mesh = Mesh(
                pump=self.pump, me=me, cluster=settings.cluster, secret=settings.peer_secret(), receiver=self
            )
            self.routing.links = self.mesh.links
            self._membership = Membership(
                redis,
                Keys(settings.cluster),
                me,
                ttl_s=settings.ttl_s,
                secret=settings.peer_secret(),
                on_view=self._enter,
            )
            self.telemetry.membership = self._membership
            # Not before: peers that knew an earlier life of this node are dialling already.
            peers.start()
            await nursery.start(self.mesh.run)
            await nursery.start(self._membership.run)
            self._lease.watch(self._membership)
            await nursery.start(self.deaths.run)
            nursery.start_soon(self._own_no_more)
            self.pump.wheel.call_later(SWEEP_S, self._sweep)
            await self._settled.wait()
            edge.start()
            self._serving = True
            self._open_or_close()
            task_status.started()
            _log.info("serving", node=self.name, cluster=settings.cluster, **self.addresses)

    async def drain(self) -> None:
        """Hands over all that the node owns, asks its clients to reconnect elsewhere, and leaves the cluster.

        What has not gone within `drain_timeout_s` goes with the connection."""
        self._draining = True
        _log.info("draining", node=self.name, sessions=len(self.attachments.sessions))
        limit_s = self.settings.drain_timeout_s
        with trio.move_on_after(limit_s):
            with trio.move_on_after(HAND_OVER * limit_s), self._handing_over:
                self._hand_over_or_not()
                await self._membership.drain()
                await self._settled.wait()
            await farewell.notice(self.attachments.sessions)
            self._open_or_close()
            budget = self.settings.reconnects_per_s
            await farewell.drain(self.attachments.sessions, lambda: farewell.part_of(budget, self.view))
        self._open_or_close()  # however little time there was
        with trio.move_on_after(FAREWELL_S if self._redis.connected else 0):
            await self._membership.leave()
        _log.info("left", node=self.name, sessions=len(self.attachments.sessions))

    def _hand_over_or_not(self) -> None:
        # Without Redis nothing can be handed over, whether it is away or says nothing: clients need not wait.
        if self._draining and self._lease.standing not in ("held", "unsure"):
            self._handing_over.cancel()

    async def _own_no_more(self) -> None:
        """Gives up all slots if others compute another table: two owners of a slot would split its users."""
        await self._membership.disagreed.wait()
        self._disowned = True
        self._open_or_close()
        await self._membership.drain()
        _log.error("this node owns nothing any more: restart it with the others' release", node=self.name)

    def _open_or_close(self) -> None:
        self.admission.open = self.state == "up"

    def _on_standing(self, standing: Standing) -> None:
        """The lease has lapsed, or is held again, or the peers have said what that means."""
        log = _log.info if standing == "held" else _log.warning
        log(
            "lease " + standing, lease_age_s=round(self._membership.lease_age_s, 3), redis=self._redis.trouble
        )
        self.mesh.dial_all(standing != "held")
        self.deaths.on_standing(standing)
        if standing in OWNING:
            self.transition.resume()
        else:
            self.transition.suspend()
        self._open_or_close()
        self._hand_over_or_not()
        if standing == "isolated":
            # What still lies in them would arrive when the network is back, behind what its senders repeat.
            for link in tuple(self.mesh.links.values()):
                link.drop("this node is cut off")
            farewell.cut_off(self.attachments.sessions)

    # --- news of the ring

    def _enter(self, view: RingView) -> None:
        if self._settled.is_set():
            self._settled = trio.Event()
        self.telemetry.ring_changes += 1
        self.transition.enter(view)
        self.mesh.update(view)
        self._lease.look()
        self.deaths.look()

    def news(self, link: PeerLink, epoch: int, members_hash: int) -> None:
        """A peer routes by another ring than this node."""
        self._membership.heard(epoch, members_hash)  # the link asks for its members
        self.deaths.news(epoch, members_hash)

    # --- from the links

    def link_up(self, link: PeerLink) -> None:
        """A peer can be talked to."""
        self.telemetry.link_up(link)
        self._lease.link_up(link)
        self.transition.link_up(link)

    def link_down(self, link: PeerLink) -> None:
        """A peer cannot be talked to; Redis may know whether it lives."""
        self.attachments.link_down(link)
        self._membership.renew_soon()
        self.deaths.link_down(link)

    # --- time

    def _ping_due(self) -> None:
        if self._due:
            due, self._due[:] = self._due[:], []
            for session in due:
                session.ping_now()

    def _sweep(self) -> None:
        for held in self.pending.overdue():
            self.router.route_again(held)
        self.pump.wheel.call_later(SWEEP_S, self._sweep)

    # --- what the API asks

    async def set_weight(self, name: str, weight: int) -> int:
        """Gives a member another weight; returns the epoch from which it holds."""
        return await set_weight(self._redis, Keys(self.settings.cluster), name, weight)

    @property
    def state(self) -> api.NodeState:
        """Whether the node serves clients."""
        if self._draining:
            return "draining"
        if self._disowned or self._lease.standing == "isolated":
            return "isolated"
        return "up" if self._serving else "joining"

    @property
    def degraded(self) -> list[str]:
        """What the node has to do without."""
        standing = self._lease.standing
        without = [] if self._redis.connected and standing == "held" else ["redis"]
        return without if standing == "held" else [*without, standing]

    @property
    def view(self) -> RingView | None:
        """The ring that the node routes by."""
        return self.routing.view

    def figures(self) -> dict[str, float]:
        """The node's own counts."""
        return self.telemetry.figures()

    def readings(self) -> Iterator[Reading]:
        """All that the node counts."""
        return readings(self.telemetry)

    def links(self) -> dict[str, str]:
        """The state of the link to each other member."""
        view = self.routing.view
        names = () if view is None else view.names
        return {name: self.mesh.dial_outcome(name) or "none" for name in names if name != self.name}

    def sessions_by_slot(self) -> dict[int, int]:
        """How many sessions the node has, by the slot of their users."""
        return Counter(session.slot for session in self.attachments.sessions.values())

    async def whois(self, user: str) -> list[peer.SessionEntry]:
        """The sessions of `user`, as the user's owner knows them."""
        return await self._whois.ask(user)
