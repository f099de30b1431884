"""What ends in another program, with real processes."""
