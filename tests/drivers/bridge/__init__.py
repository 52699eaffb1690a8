"""The Linux bridge planner: its data files show the whole datapath."""
