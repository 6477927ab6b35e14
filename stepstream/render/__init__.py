"""What people see in a terminal: pure functions from rows to text; nothing here reads a clock, a broker or a store."""
