"""The backend of flows: OpenFlow 1.4 on a bridge's own unix socket, and nothing else in between.

======== ===========================================================================================================
fields   what a flow can look at, on the wire (OXM and Nicira's NXM)
matches  a match: text to bytes and back
actions  a flow's actions: text to bytes and back; ``learning`` is the longest one
messages the messages of the protocol: what is asked, and how an answer is read
words    the switch's refusals, in the operator's words
session  one connection, and the thread that reads it
marks    the cookie: whose a flow is
ports    interfaces by name, and their numbers on this bridge
mirror   what is in the switch, as last heard
switch   one bridge: its session, mirror and bundles
backend  :class:`drivers.contract.Backend` for flows
======== ===========================================================================================================
"""
