"""What who can reach the container, its files or its settings can try; each test names what it must not get."""
