"""Apache Kafka and ClickHouse on one machine, from pip alone: started, checked and stopped by us,
loopback only."""
