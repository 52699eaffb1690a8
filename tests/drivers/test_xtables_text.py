"""One spelling of a rule, whoever writes it: the planners or iptables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import InvalidRequest
from drivers.xtables import VERSIONS
from drivers.xtables_text import check, parse, spell
from tests.drivers.xtables_world import planned, rules


@pytest.mark.parametrize("version", VERSIONS)
def test_planners_write_our_spelling(version: int) -> None:
    """Otherwise a rule read back by the survey would have another key than the one it was made with."""
    chain, _ = planned(version)
    for spec in (*chain.rules, *(rule.spec for rule in rules(version))):
        assert spell(spec) == spec
        assert check(version, spec) == spec


@pytest.mark.parametrize(
    ("printed", "spec", "comment"),
    [
        ('-s 10.0.0.2/32 -i br0 -m comment --comment "weft:a::" -j ACCEPT', "-i br0 -s 10.0.0.2 -j ACCEPT", "weft:a::"),
        ("-d 2001:db8::1/128 -o br0 -j ACCEPT", "-o br0 -d 2001:db8::1 -j ACCEPT", None),
        ("-s 10.0.0.0/8 ! -i br0 -j DROP", "! -i br0 -s 10.0.0.0/8 -j DROP", None),
        ("-o b -m devgroup --src-group 22511 -j X", "-o b -m devgroup --src-group 0x57ef -j X", None),
        ('-m comment --comment "-j RETURN" -j DROP', "-j DROP", "-j RETURN"),
        ('-m comment --comment "a \\"b\\" \\\\ c" -j RETURN', "-j RETURN", 'a "b" \\ c'),
        ("-p tcp -m tcp --dport 80 -j DROP", "-p tcp -m tcp --dport 80 -j DROP", None),
    ],
)
def test_rules_are_read_as_iptables_prints_them(printed: str, spec: str, comment: str | None) -> None:
    (line,) = parse(f"-N X\n-A X {printed}\n")
    assert (line.raw, line.spec, line.comment) == (printed, spec, comment)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "-j",
        "-j DROP",
        "-j  ACCEPT",
        "-i eth0 -j ACCEPT\nCOMMIT",
        '-i "eth0" -j ACCEPT',
        "-i eth0 -m comment --comment x -j ACCEPT",
        "-s 10.0.0.1;reboot -j ACCEPT",
        "-s 2001:db8::1 -j ACCEPT",
        "-m devgroup --src-group 0x57ef/0xffff -j ACCEPT",
        "-i eth0:1 -j ACCEPT",
        "-t nat -j ACCEPT",
    ],
)
def test_only_what_planners_write_is_written(spec: str) -> None:
    with pytest.raises(InvalidRequest):
        check(4, spec)


@given(st.text(alphabet=st.sampled_from("-ijsdm! \"'\\\nA/.0:+é"), max_size=40))
def test_any_text_is_read_and_none_that_could_harm_is_written(text: str) -> None:
    parse(f"-A X {text}")
    try:
        check(4, text)
    except InvalidRequest:
        return
    assert not set(text) & set("\"'\\\n!")
