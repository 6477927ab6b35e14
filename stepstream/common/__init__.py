"""What several parts of Stepstream share and none of them owns."""
