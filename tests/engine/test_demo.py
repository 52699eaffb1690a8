"""`make demo` where an engine runs already: a node stands for that machine. CI runs it on a machine without one."""

import pytest

from tests.lab.engine import Engine
from tests.lab.names import BIN, REPO
from tests.lab.snapshot import snapshot


@pytest.mark.engine
def test_the_demo_uses_the_running_engine_and_leaves_nothing(private_engine: Engine) -> None:
    node = private_engine.node
    before = snapshot(node)
    done = node.run(BIN / "python", "-m", "tests.lab.demo", timeout=120, env={"PYTHONPATH": str(REPO)})
    assert "The Docker Engine of this machine is used." in done.stdout
    assert "40 packets transmitted, 40 packets received, 0% packet loss" in done.stdout
    assert done.stdout.rstrip().endswith("All of it is cleaned up.")
    assert not before.difference(snapshot(node))
    assert private_engine.docker("ps", "-aq") == ""
    assert private_engine.docker("images", "-q") == ""
    assert not node.path("/run/docker/plugins/weft.sock").exists()
    assert list(node.path("/var/lib/weft").iterdir()) == []
