"""spec/protocol.md says what the code says."""

from typing import Any

import pytest
from pydantic import BaseModel

from plugin import wire
from plugin.options import ENDPOINT_OPTIONS, NETWORK_OPTIONS, POOL_OPTIONS
from plugin.schemas import methods
from tests.lab.names import REPO

TEXT = (REPO / "spec" / "protocol.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Return the rows of the first table under a heading, without its own two."""
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = section[section.index("|") :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def fields(model: type[BaseModel]) -> list[str]:
    """Return a model's fields as Docker spells them, those that may be missing in brackets."""
    found = ((field.alias or name, field.is_required()) for name, field in model.model_fields.items())
    return [name if required else f"({name})" for name, required in found]


@pytest.mark.parametrize("protocol", ["NetworkDriver", "IpamDriver"])
def test_every_method_is_promised_as_it_is_read_and_answered(protocol: str) -> None:
    def reads(method: wire.Method[Any, Any]) -> str:
        return "-" if method.request is wire.NOTHING else ", ".join(fields(method.request))

    def answers(method: wire.Method[Any, Any]) -> str:
        return ", ".join(name.strip("()") for name in fields(method.reply))

    assert [row[:3] for row in rows(protocol)] == [
        [method.name, reads(method), answers(method)] for method in methods(protocol)
    ]


def test_every_option_is_listed() -> None:
    for heading, table in (
        ("Options", NETWORK_OPTIONS),
        ("Options of an endpoint", ENDPOINT_OPTIONS),
        ("Options of a pool", POOL_OPTIONS),
    ):
        assert [row[0] for row in rows(heading)] == [option.key for option in table]
