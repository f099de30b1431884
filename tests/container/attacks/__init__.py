"""What an unprivileged user of the container, or another container of its pod, might try."""
