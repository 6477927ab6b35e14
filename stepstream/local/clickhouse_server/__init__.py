"""ClickHouse's HTTP protocol over chdb: the store of one machine, for every ClickHouse client.

Run as ``python -m stepstream.local.clickhouse_server --path DIR --port N``; chdb allows one process
per directory.
"""
