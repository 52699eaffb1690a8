"""The planners by the name of their backend (``weft.backend``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from drivers.bridge.planner import BridgePlanner
from drivers.contract import Planner
from drivers.ovs.planner import OvsPlanner

PLANNERS: Final[Mapping[str, Planner]] = {"bridge": BridgePlanner(), "ovs": OvsPlanner()}
