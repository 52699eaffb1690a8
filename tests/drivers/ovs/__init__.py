"""The backend of Open vSwitch's database, on a real Open vSwitch."""
