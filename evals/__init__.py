"""What made a run fail, and whether a version of an agent is worse. Pure."""
