"""A laboratory of Docker hosts on one machine.

A node is a Docker host made of namespaces: its own links, mounts, processes and disk, with a real dockerd in it.
Tests may break it, pull its plug and start it again; the machine itself notices nothing. `node` and `net` are the hosts
and the wires, `engine` and `weft` run in them, `image` is what their containers run, `snapshot` tells what was left
behind.
"""
