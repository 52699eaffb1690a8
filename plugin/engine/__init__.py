"""The use cases: what weft does for networks, endpoints and the commands, said in our own words."""
