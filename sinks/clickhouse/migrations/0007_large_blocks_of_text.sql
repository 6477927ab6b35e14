-- Inputs and outputs repeat each other over long distances (an agent sends its whole conversation with every call), so they
-- are compressed in larger blocks: on recorded agents a sixth less. What is there is rewritten as parts are merged.
ALTER TABLE ${database}.steps_raw${on_cluster}
    MODIFY COLUMN input CODEC(ZSTD(5)),
    MODIFY COLUMN output CODEC(ZSTD(5)),
    MODIFY COLUMN documents CODEC(ZSTD(5));

ALTER TABLE ${database}.steps_raw${on_cluster}
    MODIFY COLUMN input MODIFY SETTING min_compress_block_size = 4194304, max_compress_block_size = 8388608;

ALTER TABLE ${database}.steps_raw${on_cluster}
    MODIFY COLUMN output MODIFY SETTING min_compress_block_size = 4194304, max_compress_block_size = 8388608;
