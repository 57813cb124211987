-- Takes the next place in a window that slides: in any ARGV[3] seconds at most ARGV[2] begin. Returns the place's time.
-- ARGV[1] is the asker's clock, epoch seconds. The list holds the times of the last places, the oldest first.
local now, most, span = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local at = now
if redis.call('LLEN', KEYS[1]) >= most then
  at = math.max(now, tonumber(redis.call('LINDEX', KEYS[1], 0)) + span)
end
local text = string.format('%.6f', at)
redis.call('RPUSH', KEYS[1], text)
redis.call('LTRIM', KEYS[1], -most, -1)
redis.call('PEXPIRE', KEYS[1], math.ceil((at - now + span) * 1000))
return text
