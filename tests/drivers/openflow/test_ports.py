"""Numbers of interfaces: whoever has them may be waited for."""

from collections.abc import Iterator

import pytest

from drivers.openflow.ports import NoPort, Ports


def test_an_interface_without_a_number_is_asked_for_once_in_a_call() -> None:
    asked: list[str] = []
    numbers: dict[str, int] = {}

    def ofport(name: str) -> int | None:
        asked.append(name)
        return numbers.get(name)

    def listing() -> Iterator[tuple[int, str]]:
        yield from ()

    ports = Ports("br-int", ofport, listing)
    for ask in (ports.number, ports.number_at_last, ports.number):
        with pytest.raises(NoPort):
            ask("wfh1")
    assert asked == ["wfh1"]
    numbers["wfh1"] = 7
    ports.ask_again()
    assert ports.number("wfh1") == ports.number_at_last("wfh1") == 7
    numbers.clear()
    assert ports.number_at_last("wfh1") == 7
    assert ports.number_at_last("wfh1") == 7
    assert asked == ["wfh1"] * 4
