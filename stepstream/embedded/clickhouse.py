"""ClickHouse on this machine: chdb behind ClickHouse's HTTP protocol, in a process of its own."""
