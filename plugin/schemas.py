"""JSON Schemas of Docker's two protocols as weft reads and writes them, generated from :mod:`plugin.wire`.

    python -m plugin.schemas spec/schemas            write them
    python -m plugin.schemas --check spec/schemas    exit 1 if a file there differs

A request's schema has the fields weft reads; others may be there. A reply's schema is exact.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from pydantic.json_schema import JsonSchemaMode, models_json_schema

from plugin import wire

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
PROTOCOLS: Final = {"NetworkDriver": "network-driver.json", "IpamDriver": "ipam-driver.json"}
HANDSHAKE: Final = "Plugin"


def methods(protocol: str) -> list[wire.Method[Any, Any]]:
    """Return the methods spoken on a protocol's socket: the handshake and its own, in the order of their tables."""
    known = [method for method in vars(wire).values() if isinstance(method, wire.Method)]
    return [method for method in known if method.path[1:].partition(".")[0] in {HANDSHAKE, protocol}]


def schema(protocol: str) -> str:
    """Return the schema of one protocol: ``methods`` says what each one carries, ``$defs`` how that is built."""
    spoken = methods(protocol)
    replies: list[type[Any]] = [*(method.reply for method in spoken), wire.Failure]
    models: dict[tuple[type[Any], JsonSchemaMode], None] = {
        (method.request, "validation"): None for method in spoken if method.request is not wire.NOTHING
    }
    models |= {(reply, "serialization"): None for reply in replies}
    refs, definitions = models_json_schema(list(models), ref_template="#/$defs/{model}")
    document = {
        "$schema": DIALECT,
        "title": f"Docker's {protocol} protocol, as weft speaks it",
        "methods": {
            method.path: {
                "request": refs.get((method.request, "validation"), {"description": "not looked at"}),
                "reply": {"anyOf": [refs[method.reply, "serialization"], refs[wire.Failure, "serialization"]]},
            }
            for method in spoken
        },
        **definitions,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def stale(folder: Path) -> list[Path]:
    """Return the files that are not what the models say."""
    wanted = {folder / name: schema(protocol) for protocol, name in PROTOCOLS.items()}
    return [file for file, text in wanted.items() if not file.exists() or file.read_text(encoding="utf-8") != text]


def main(arguments: list[str]) -> int:
    """Write or check; return the exit code."""
    checking = "--check" in arguments
    (folder,) = (Path(argument) for argument in arguments if argument != "--check")
    if checking:
        found = stale(folder)
        for file in found:
            sys.stderr.write(f"{file} is stale: python -m plugin.schemas {folder}\n")
        return 1 if found else 0
    for protocol, name in PROTOCOLS.items():
        (folder / name).write_text(schema(protocol), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
