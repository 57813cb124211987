#!lua
-- Writes each entry over a lower stamp only. KEYS[i]: the hash of entry i.
-- ARGV: now, then field, epoch, offset, ends_at, payload an entry. Returns a letter an entry: written, same, older.
local now = tonumber(ARGV[1])
local DAY_S, LONGEST_S, CROWDED = 86400, 400 * 86400, 64

local function order(kept, epoch, offset)
  local ok, old = pcall(cjson.decode, kept)
  local stamp = ok and type(old) == 'table' and old.stamp
  if type(stamp) ~= 'table' or type(stamp[1]) ~= 'number' or type(stamp[2]) ~= 'number' then return 1 end
  if stamp[1] ~= epoch then return epoch - stamp[1] end
  return offset - stamp[2]
end

-- Fields of policies and models long gone: a reader would decode them on every check.
local function sweep(name)
  local found = redis.call('HGETALL', name)
  for i = 1, #found, 2 do
    local ok, old = pcall(cjson.decode, found[i + 1])
    if ok and type(old) == 'table' and type(old.expires_at) == 'number' and old.expires_at + DAY_S < now then
      redis.call('HDEL', name, found[i])
    end
  end
end

local letters = {}
for i, name in ipairs(KEYS) do
  local a = (i - 1) * 5 + 2
  local field, epoch, offset, ends_at = ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  local kept = redis.call('HGET', name, field)
  local later = kept and order(kept, epoch, offset) or 1
  if later > 0 and redis.call('HSET', name, field, ARGV[a + 4]) == 1 and redis.call('HLEN', name) > CROWDED then
    sweep(name)
  end
  if later >= 0 then
    local life = math.min(LONGEST_S, math.max(0, math.ceil(ends_at - now)) + DAY_S)
    if redis.call('TTL', name) < life then redis.call('EXPIRE', name, life) end
  end
  letters[i] = later > 0 and 'w' or later == 0 and 's' or 'o'
end
return table.concat(letters)
