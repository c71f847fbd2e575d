"""The promise that everything rests on: no reply reaches the wrong caller."""

import random

import trio

from ring.store.client import Redis
from ring.store.connection import StoreUnavailable
from ring.store.embedded import EmbeddedServer
from tests.store.wires import Proxy

CALLERS = 100
KILLS = 20
ANSWERS = 50  # between two kills


class Fuzz:
    """Callers that know what they must be answered, and a killer of the connection that they share."""

    def __init__(self, redis: Redis, admin: Redis, proxy: Proxy) -> None:
        self.redis = redis
        self.admin = admin
        self.proxy = proxy
        self.chance = random.Random(7)
        self.script = redis.register_script("return {ARGV[1], ARGV[1]}")
        self.answered = self.cancelled = self.unknown = 0

    async def ask(self, token: bytes) -> None:
        """One question whose answer nobody else gets."""
        kind = self.chance.randrange(4)
        if kind == 0:
            assert await self.redis.execute_command("ECHO", token) == token
        elif kind == 1:
            assert await self.script(args=[token]) == [token, token]
        elif kind == 2:
            batch = self.redis.pipeline(transaction=self.chance.random() < 0.5)
            batch.execute_command("ECHO", token)
            batch.call_script(self.script, args=[token])
            assert await batch.execute() == [token, [token, token]]
        else:
            await self.redis.set(token[:3], token)
            found = await self.redis.get(token[:3])
            assert isinstance(found, bytes)
            assert found[:3] == token[:3]

    async def caller(self, number: int) -> None:
        """Asks until the last kill, and gives up on some questions early."""
        turn = 0
        while self.redis.connections_made <= KILLS:
            turn += 1
            with trio.CancelScope() as scope:
                if self.chance.random() < 0.4:
                    scope.deadline = trio.current_time() + self.chance.random() * 0.004
                try:
                    await self.ask(b"%03d-%d" % (number, turn))
                    self.answered += 1
                except StoreUnavailable:
                    self.unknown += 1
            self.cancelled += scope.cancelled_caught

    async def killer(self) -> None:
        """Breaks the connection again and again, by turns at the server and on the way."""
        while (made := self.redis.connections_made) <= KILLS:
            enough = self.answered + ANSWERS
            while self.answered < enough:
                await self.admin.ping()
            if made % 2:
                self.proxy.cut()
            else:
                await self.admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            while self.redis.connections_made == made:
                await self.admin.ping()


async def test_no_reply_reaches_the_wrong_caller(
    redis_server: EmbeddedServer, redis_url: str, nursery: trio.Nursery
) -> None:
    """100 tasks, cancelled at random, the connection killed 20 times: every reply is its caller's own."""
    proxy = Proxy(redis_server.port)
    await nursery.start(proxy.run)
    redis = Redis.from_url(proxy.url, client_name="victim")
    await nursery.start(redis.run)
    admin = Redis.from_url(redis_url, client_name="admin")
    await nursery.start(admin.run)
    fuzz = Fuzz(redis, admin, proxy)
    with trio.fail_after(30):
        async with trio.open_nursery() as callers:
            callers.start_soon(fuzz.killer)
            for number in range(CALLERS):
                callers.start_soon(fuzz.caller, number)
    assert redis.connections_made == KILLS + 1
    assert fuzz.answered >= KILLS * ANSWERS
    assert fuzz.cancelled > 100
    assert fuzz.unknown > 100
