"""The tests, tier by tier: unit, edge, process, container, wheel; and the lab they use."""
