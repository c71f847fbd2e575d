"""`ring serve`: one node. Its flags are the table of options of `ring.config`."""

import os
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from ring.config import OPTIONS, load
from ring.option import Option


def serve(config: Path | None = None, **flags: Any) -> None:
    """Runs a node until SIGTERM or SIGINT, which drain it; a second one stops it at once."""
    settings = load(flags, os.environ, config)
    import trio

    from ring.logs import logging
    from ring.process import serve as serve_node

    with logging(settings.log_level, settings.log_format, settings.name):
        trio.run(serve_node, settings)


def _parameter(option: Option) -> Parameter:
    # Values are taken as text: ring.config converts those of flags, environment and file with one wording.
    kind: Any = str
    flag = option.flag
    if option.plain is bool:
        kind = bool
        flag += "/--no-" + flag.removeprefix("--")
    elif option.many:
        kind = list[str]
    note = typer.Option(
        flag, help=f"{option.help}.{_default(option)}", metavar=_metavar(option), show_default=False
    )
    return Parameter(
        option.name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, note]
    )


def _default(option: Option) -> str:
    return "" if option.required or option.default in (None, (), False) else f" (default: {option.default})"


def _metavar(option: Option) -> str | None:
    if option.plain is bool:
        return None
    if get_origin(option.plain) is Literal:
        return "|".join(get_args(option.plain))
    kinds = {Path: "FILE", float: "SECONDS", int: "BYTES" if option.name.endswith("_bytes") else "NUMBER"}
    return kinds.get(option.plain, "ADDRESS" if "address" in option.expects else "TEXT")


_CONFIG = Parameter(
    "config",
    Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        typer.Option("--config", help="File with any of these options, in TOML.", show_default=False),
    ],
)

# typer reads a command's options off its signature.
serve.__signature__ = Signature([_CONFIG, *map(_parameter, OPTIONS)])  # type: ignore[attr-defined] # as inspect documents
