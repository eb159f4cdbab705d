-- Digests say which version of their hash they are, and run configs name their runtime.
--
-- JSON that is stored stays as it was written: readers take both spellings. Text that is compared is rewritten.

UPDATE ops SET digest = 'op1-' || digest;
UPDATE networks SET digest = 'net1-' || digest;
UPDATE tables SET config_id = substr(config_id, 1, instr(config_id, '-torch') - 1)
                              || '-libtorch-eager-' || substr(config_id, instr(config_id, '-torch') + 6)
WHERE instr(config_id, '-torch') > 0;
