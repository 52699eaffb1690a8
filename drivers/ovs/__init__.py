"""The datapath of ``weft.backend=ovs``: what is wanted of one br-int, as pure functions of plain values.

======== ===========================================================================================================
model    what the planner is told: networks, ports, peers, gateways
tables   the tables of the pipeline and the registers that it uses, each with its purpose
pipeline the planner: the host's flows, a network's, an endpoint's
source   a port's own addresses: what a container may say that it is
answers  ARP and neighbour discovery, answered by flows
members  a list of ports or peers that flows can walk: one element each
gateway  the host's place in a network, and that it is never seen in a tunnel
tunnel   other hosts: who may send, whom to send to, where a MAC was seen
======== ===========================================================================================================
"""
