"""Whether a run is a success, by the checks of a Criteria document."""
