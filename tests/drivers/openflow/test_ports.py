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


def test_of_an_interface_that_is_gone_only_its_last_number_leads_to_it() -> None:
    """A flow at an earlier number is called by that number, or whoever asks for it by name would look elsewhere."""
    numbers = {"wfh1": 4}

    def listing() -> Iterator[tuple[int, str]]:
        yield from ((number, name) for name, number in numbers.items())

    ports = Ports("br-int", numbers.get, listing)
    assert ports.name(4) == "wfh1"
    numbers["wfh1"] = 5
    ports.ask_again()
    assert ports.number("wfh1") == 5
    assert (ports.name(4), ports.name(5)) == (None, "wfh1")
    numbers.clear()
    ports.ask_again()
    assert (ports.name(4), ports.name(5), ports.number_at_last("wfh1")) == (None, "wfh1", 5)


def test_an_interface_that_is_gone_is_forgotten_once_no_flow_has_its_number() -> None:
    numbers = {f"wfh{number}": number for number in range(1, 100)}

    def listing() -> Iterator[tuple[int, str]]:
        yield from ()

    ports = Ports("br-int", numbers.get, listing)
    assert [ports.number(name) for name in numbers] == [*range(1, 100)]
    numbers.clear()
    ports.ask_again()
    ports.let_go()  # asked about since the start: perhaps their flows are only just made
    for _ in range(3):
        assert ports.name(4) == "wfh4"  # as a flow is read that has it
        ports.let_go()
    assert ports.number_at_last("wfh4") == 4
    with pytest.raises(NoPort):
        ports.number_at_last("wfh5")
