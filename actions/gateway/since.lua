#!lua flags=allow-oom
-- From when on this Redis has its contents. KEYS[1]: the hash of marks. ARGV: now.
-- Another server than the one that had them has come from a copy, or is a replica: what was written last may be lost.
local call = redis.call
local told = redis.pcall('INFO', 'server')
local run = type(told) == 'string' and string.match(told, 'run_id:(%x+)') or nil
local kept = call('HMGET', KEYS[1], 'since', 'run')
if not kept[1] or (run and kept[2] and kept[2] ~= run) then
  kept[1] = ARGV[1]
  call('HSET', KEYS[1], 'since', kept[1])
end
if run and kept[2] ~= run then call('HSET', KEYS[1], 'run', run) end
return kept[1]
