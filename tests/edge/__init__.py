"""What touches the machine, with a directory for `/`."""
