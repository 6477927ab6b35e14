"""ClickHouse's HTTP protocol over chdb: the store of one machine, for every ClickHouse client.

Run as ``python -m stepstream.sinks.embedded --path DIR --port N``; chdb allows one process per directory.
"""
