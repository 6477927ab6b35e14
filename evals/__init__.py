"""What made a run fail. Pure."""
