"""Whether a version of an agent is worse than another one: statistics of paired trials. Pure."""
