"""The stores with real containers: every row of the systems table, real clients, real restarts."""
