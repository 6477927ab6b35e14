-- A part of a full batch is a few files, not two hundred: file systems take long to make and to forget so many. Merges give
-- large parts a file for each column, as before.
ALTER TABLE ${database}.steps_raw${on_cluster} MODIFY SETTING min_bytes_for_wide_part = 134217728;
