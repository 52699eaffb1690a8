"""The crash law on the real kernel: SIGKILL after any effect, then a start, and the host is what the store says.

`hooked` is weft as it is, but it writes down its effects and dies after the one it is told; `host` runs it in a network
namespace and looks at that with the kernel's own tools.
"""
