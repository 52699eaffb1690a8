"""The kernel's own objects: links, addresses, and the switches under /proc/sys."""
