"""ClickHouse: the schema and its migrations, the sink that fills it from Kafka, and read access."""
