"""Make the compact recordings of spec/recordings out of raw ones: one line per request that differs from all others.

    python -m tests.plugin.compact RAW spec/recordings

Two requests are the same if they differ only in ids and sandbox paths (and in Content-Length, which follows). The
first one is kept, as recorded, with the answer the recorder gave it and the scenarios that sent it.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

IDS = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-z]{25}\b|(?<=/netns/)[0-9a-f]{12}")


def calls(raw: Path) -> Iterator[dict[str, Any]]:
    """Return the calls of one engine, in the order of its scenarios; the recorder's remarks are no calls."""
    for scenario in sorted(raw.glob("*.jsonl")):
        for line in scenario.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "path" in row:
                yield row


def compact(raw: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the calls of one engine that differ, by path."""
    kept: dict[str, dict[str, Any]] = {}
    for row in calls(raw):
        headers = {name: value for name, value in row["headers"].items() if name != "Content-Length"}
        call = {"path": row["path"], "headers": headers, "request": row["request"]}
        entry = kept.setdefault(
            IDS.sub("*", json.dumps(call, sort_keys=True)), {"scenarios": [], **call, "response": row["response"]}
        )
        if row["scenario"] not in entry["scenarios"]:
            entry["scenarios"].append(row["scenario"])
    by_path: dict[str, list[dict[str, Any]]] = {}
    for entry in kept.values():
        by_path.setdefault(entry["path"], []).append(entry)
    return by_path


def main() -> None:
    """Compact every engine's recordings."""
    raw, out = map(Path, sys.argv[1:])
    for engine in sorted(path for path in raw.iterdir() if path.is_dir()):
        (out / engine.name).mkdir(parents=True, exist_ok=True)
        for path, entries in compact(engine).items():
            lines = (json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in entries)
            (out / engine.name / f"{path[1:]}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
