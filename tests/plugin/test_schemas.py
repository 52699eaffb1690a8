"""The schemas in spec/schemas are what the models say, and a drift is noticed."""

import json
from pathlib import Path

import pytest

from plugin import schemas, wire
from plugin.schemas import PROTOCOLS
from tests.lab.names import REPO

FOLDER = REPO / "spec" / "schemas"


def test_the_schemas_in_spec_are_up_to_date() -> None:
    assert schemas.stale(FOLDER) == []
    assert schemas.main(["--check", str(FOLDER)]) == 0


def test_a_drift_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert schemas.main(["--check", str(tmp_path)]) == 1
    assert schemas.main([str(tmp_path)]) == 0
    assert schemas.main(["--check", str(tmp_path)]) == 0
    file = tmp_path / PROTOCOLS["NetworkDriver"]
    file.write_text(file.read_text(encoding="utf-8").replace("SandboxKey", "Sandbox"), encoding="utf-8")
    capsys.readouterr()
    assert schemas.main(["--check", str(tmp_path)]) == 1
    assert str(file) in capsys.readouterr().err


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_method_is_in_its_protocol_s_schema(protocol: str) -> None:
    document = json.loads((FOLDER / PROTOCOLS[protocol]).read_text(encoding="utf-8"))
    methods = [method for method in vars(wire).values() if isinstance(method, wire.Method)]
    assert document["methods"].keys() == {
        method.path for method in methods if method.path.startswith((f"/{protocol}.", "/Plugin."))
    }
    refs = [ref["$ref"] for method in document["methods"].values() for ref in method["reply"]["anyOf"]]
    assert all(ref.removeprefix("#/$defs/") in document["$defs"] for ref in refs)


def test_a_schema_uses_docker_s_names() -> None:
    document = json.loads((FOLDER / PROTOCOLS["NetworkDriver"]).read_text(encoding="utf-8"))
    assert document["$defs"]["Join"]["required"] == ["NetworkID", "EndpointID", "SandboxKey"]
    assert document["$defs"]["Failure"]["properties"].keys() == {"Err", "Error"}
