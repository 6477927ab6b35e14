-- A strong codec costs half of each insert and each merge (16-20 and 12.9 us of CPU a row, 10.8 and 6.7 with ZSTD(1)), and a
-- row is merged several times on its first day. So texts are compressed quickly at first, and strongly when they are a day old.
ALTER TABLE ${database}.steps_raw${on_cluster} MODIFY SETTING default_compression_codec = 'ZSTD(1)';

ALTER TABLE ${database}.steps_raw${on_cluster}
    MODIFY COLUMN input CODEC(Default),
    MODIFY COLUMN output CODEC(Default),
    MODIFY COLUMN documents CODEC(Default);

-- Existing parts are compressed strongly already.
ALTER TABLE ${database}.steps_raw${on_cluster}
    MODIFY TTL toDateTime(append_time) + toIntervalDay(${steps_retention_days}),
               toDateTime(append_time) + toIntervalDay(1) RECOMPRESS CODEC(ZSTD(5, 23))
    SETTINGS materialize_ttl_after_modify = 0;
