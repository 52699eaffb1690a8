"""The commands' way to the running weft: HTTP over its control socket, with the standard library only."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any, Final

from drivers.errors import WeftError
from plugin.unix_http import UnixConnection

_SECONDS: Final = 60.0


class NotRunning(WeftError):
    """Nothing answers at the control socket."""


class Refused(WeftError):
    """weft answered with an error; ``str()`` is its sentence."""


def ask(path: Path, method: str, target: str) -> Any:  # noqa: ANN401 - JSON
    """Return weft's answer. Raises :class:`NotRunning`, or :class:`Refused` with the reason."""
    connection = UnixConnection(path, _SECONDS)
    try:
        connection.request(method, target)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except FileNotFoundError:
        raise NotRunning(f"weft is not running: there is no socket at {path} (WEFT_CONTROL says where it is)") from None
    except PermissionError:
        raise NotRunning(f"{path} may be opened by root only") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotRunning(f"weft does not answer at {path}: {error}") from None
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise Refused(str(answer.get("error") or answer.get("Err") or answer))
    return answer
