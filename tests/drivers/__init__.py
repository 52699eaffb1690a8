"""What knows Linux: values, planners, and the loop that brings a host to them."""
