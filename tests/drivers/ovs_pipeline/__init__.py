"""The planner of the pipeline: its cases, and what real packets make of it."""
