"""The one error tree. Each message tells the operator what happened, to what, and what to do next.

WeftError
├── InvalidRequest      what is asked for cannot be, here or anywhere: the message names key, value and what is allowed
├── NotFound            the network, endpoint or link that is named does not exist
├── Conflict            somebody else holds what is asked for: the message names the holder
├── Unsupported         this host lacks what it takes
├── HostFailure         the kernel, nft or iptables refused a step
├── DeadlineExceeded    the request waited too long: the message names what for
└── Refusing            the state on disk cannot be read, so nothing is changed
"""


class WeftError(Exception):
    """Base of every error that weft raises on purpose. ``str()`` is the sentence for the operator."""


class InvalidRequest(WeftError):
    """What is asked for cannot be: a value out of range, an unknown option, two options that contradict."""


class NotFound(WeftError):
    """The network, endpoint or link that is named does not exist."""


class Conflict(WeftError):
    """Somebody else holds what is asked for; nothing was changed."""


class Unsupported(WeftError):
    """This host's kernel or programs lack what is asked for."""


class HostFailure(WeftError):
    """The kernel, nft or iptables refused a step; the message ends with their own words."""


class DeadlineExceeded(WeftError):
    """A request waited longer than Docker would; what it had begun is withdrawn."""


class Refusing(WeftError):
    """The state on disk cannot be read. Traffic goes on; nothing is created, changed or swept until it can."""
