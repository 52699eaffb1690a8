"""The laws of DESIGN.md, on a host in memory: any state, any order, a crash anywhere."""
