"""`ring verify`: a cluster of its own, broken in many ways under load, and every message's fate checked."""

from typing import TYPE_CHECKING, Annotated

import typer

from ring.cli.reach import JsonOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from ring.verify.campaign import Outcome, Progress
    from ring.verify.plan import Plan

LARGEST_SEED = 2**31


def verify(
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST_SEED, help="Of all that is left to chance; any, if left out."),
    ] = None,
    faults: Annotated[
        str, typer.Option(metavar="NAMES", help="Which: all, none, or names with commas between them.")
    ] = "all",
    alone: Annotated[
        bool | None,
        typer.Option(
            help="Each of them once, in turn; done where --random is not given.", show_default=False
        ),
    ] = None,
    random: Annotated[
        int, typer.Option(min=0, max=100_000, metavar="N", help="Then N of them in random order.")
    ] = 0,
    nodes: Annotated[int, typer.Option(min=2, max=16, help="How many nodes.")] = 4,
    users: Annotated[int, typer.Option(min=10, max=500, help="How many users.")] = 120,
    rate: Annotated[float, typer.Option(min=1, max=2000, help="Messages per second, in all.")] = 150.0,
    pause_s: Annotated[
        float, typer.Option("--pause-s", min=0, max=3600, help="Seconds of calm after each fault.")
    ] = 3.0,
    ttl_s: Annotated[
        float, typer.Option("--ttl-s", min=0.5, max=60, help="The lease of the nodes, in seconds.")
    ] = 1.0,
    outage_s: Annotated[
        float, typer.Option("--outage-s", min=2, max=600, help="How long the long faults last.")
    ] = 30.0,
    haproxy: Annotated[
        bool,
        typer.Option("--haproxy", help="Clients connect through an HAProxy, which is restarted too."),
    ] = False,
    list_only: Annotated[bool, typer.Option("--list", help="Only say which faults there are.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Breaks a cluster of its own under load, and checks what becomes of each message. Exits 1 if a promise
    is broken.
    """
    from ring.protocol.codes import BadRequest
    from ring.verify.plan import Plan, choose, known_faults, order

    if outage_s <= ttl_s:
        raise BadRequest(f"--outage-s: more than --ttl-s, {ttl_s:g}, or it proves nothing")
    known = known_faults(nodes, ttl_s, outage_s, haproxy=haproxy)
    if list_only:
        from ring.cli.verify_report import print_list

        print_list(list(known.values()))
        return
    if seed is None:
        seed = _any_seed()
    chosen = choose(faults, list(known))
    names = order(chosen, seed, alone=random == 0 if alone is None else alone, random=random)
    plan = Plan(
        seed=seed,
        order=names,
        nodes=nodes,
        users=users,
        rate=rate,
        pause_s=pause_s,
        ttl_s=ttl_s,
        outage_s=outage_s,
        haproxy=haproxy,
    )
    _run(plan, as_json=as_json)


def _any_seed() -> int:
    from secrets import randbelow

    return randbelow(LARGEST_SEED)


def _run(plan: "Plan", *, as_json: bool) -> None:
    import logging as standard_logging

    import msgspec
    import trio

    from ring.cli.verify_report import document, print_report, print_start, progress
    from ring.logs import logging

    # A client that loses its connection says so; here they are meant to.
    standard_logging.getLogger("ring.client").addHandler(standard_logging.NullHandler())
    print_start(plan, to_stderr=as_json)
    with logging("error", "console", "verify"), progress() as tell:
        outcome = trio.run(_until_told, plan, tell)
    if as_json:
        typer.echo(msgspec.json.encode(document(outcome)))
    else:
        print_report(outcome)
    if not outcome.ok:
        raise typer.Exit(1)


async def _until_told(plan: "Plan", tell: "Callable[[Progress], None]") -> "Outcome":
    """A signal ends the faults, so that a soak that is stopped tells what it saw; a second one ends all."""
    import signal

    import trio

    from ring.verify.campaign import verify as run

    stop = trio.Event()
    outcome = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def obey() -> None:
                async for _ in signals:
                    if stop.is_set():
                        nursery.cancel_scope.cancel()
                        return
                    stop.set()
                    typer.echo("no further faults; once more to stop at once", err=True)

            nursery.start_soon(obey)
            outcome = await run(plan, tell, stop)
            nursery.cancel_scope.cancel()
    if outcome is None:
        raise KeyboardInterrupt
    return outcome
