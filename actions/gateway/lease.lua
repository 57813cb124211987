#!lua flags=allow-oom
-- Budget leases: money held for a call before it is made. README.md beside this file is the contract.
-- KEYS[1]: the hash of the API key. Every other name begins with its hash tag, so it lives in the same slot.
-- ARGV: operation, lease, now, then
--   reserve: amount, ttl_s, project or "", stale_after_s
--   settle:  cost, project or "", seen_after (the owner's clock from which on it has the event), life_s
--   release: -
--   recount: - (KEYS[1] is a node's hash of leases): repairs its sum
-- Amounts are whole nano-USD below 2^53; sums are kept by HINCRBY, in int64.

local call = redis.call
local tag = string.match(KEYS[1], '^{[^}]+}')
local op, lease, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local SUM, DAY_S, AT_ONCE = '=', 86400, 1000
-- How long after a call was settled its owner may not have counted it: 10 s until it is in the log, 5 s for clocks.
local UNCOUNTED_S = 15
local CAUTION = {open = true, last_decision = true}

local function number(value) return type(value) == 'number' and value or nil end
local function whole(value) return string.format('%.0f', value) end
local function count(what, n) call('HINCRBY', tag .. ':z', what, whole(n or 1)) end

local function decoded(raw)
  local ok, value = pcall(cjson.decode, raw or '')
  return ok and type(value) == 'table' and value or nil
end

-- Hash of a node's leases (id -> amount, and their sum), their ends by the gateways' clock, those settled by the
-- owner's clock from which on it counts them itself.
local function held(node) return tag .. ':l:' .. node, tag .. ':x:' .. node, tag .. ':y:' .. node end

local function add(node, amount, ends_at, seen_after)
  local leases, ends, settled = held(node)
  call('HSET', leases, lease, whole(amount))
  call('HINCRBY', leases, SUM, whole(amount))
  call('ZADD', ends, string.format('%.17g', ends_at), lease)
  if seen_after then call('ZADD', settled, string.format('%.17g', seen_after), lease) end
  local life = math.ceil(math.max(0, ends_at - now)) + DAY_S
  for _, name in ipairs({leases, ends, settled}) do
    if call('TTL', name) < life then call('EXPIRE', name, life) end
  end
end

local function forget(node, id)
  local leases, ends, settled = held(node)
  local amount = tonumber(call('HGET', leases, id) or '')
  if amount then
    call('HDEL', leases, id)
    if amount ~= 0 then call('HINCRBY', leases, SUM, whole(-amount)) end
  end
  call('ZREM', ends, id)
  return call('ZREM', settled, id) == 1
end

-- Drop what no longer counts: what has ended by `now`, and what the owner has counted as of `told_at`.
local function sweep(node, told_at)
  local _, ends, settled = held(node)
  for _, id in ipairs(call('ZRANGEBYSCORE', ends, '-inf', ARGV[3], 'LIMIT', 0, AT_ONCE)) do
    count(forget(node, id) and 'unseen' or 'expired')
  end
  if told_at then
    local seen = string.format('%.17g', told_at)
    for _, id in ipairs(call('ZRANGEBYSCORE', settled, '-inf', seen, 'LIMIT', 0, AT_ONCE)) do forget(node, id) end
  end
end

-- Since when this Redis has its contents, as since.lua finds it: one that was emptied, or has come from a copy, has
-- forgotten leases from before.
local function since_when(marks)
  local told = redis.pcall('INFO', 'server')
  local run = type(told) == 'string' and string.match(told, 'run_id:(%x+)') or nil
  local kept = call('HMGET', marks, 'since', 'run')
  if not kept[1] or (run and kept[2] and kept[2] ~= run) then
    kept[1] = ARGV[3]
    call('HSET', marks, 'since', kept[1])
  end
  if run and kept[2] ~= run then call('HSET', marks, 'run', run) end
  return tonumber(kept[1])
end
local since = since_when(tag .. ':m')

-- When all caps of a link's partition were told, by its owner's clock; nil while what was forgotten may be uncounted.
local function all_told_at(link)
  local mark = decoded(call('HGET', tag .. ':m', link[2]) or nil)
  local at = mark and number(mark.at)
  return at and at >= since + UNCOUNTED_S and at or nil
end

local function chain_from(raw)
  local chain = decoded(raw)
  return chain and chain.v == 1 and type(chain.nodes) == 'table' and #chain.nodes > 0 and chain or nil
end

-- Whether all chains of a partition have been written since.
local function chains_told(field)
  local mark = decoded(call('HGET', tag .. ':m', field .. '|chains') or nil)
  return (mark and number(mark.at) or 0) >= since
end

-- The links of the key, those of a project that the caller names in front; nil where they are not known.
local function links_of(project)
  local raw = call('HGET', KEYS[1], 'chain')
  local chain = chain_from(raw)
  if raw and not chain then return nil end
  if not chain then
    chain = chain_from(call('HGET', tag .. ':u', 'chain'))
    if not chain then return nil end
    local home = string.match(chain.nodes[1][2], '^(.*/)')
    for p = 0, (number(chain.partitions) or 0) - 1 do
      if not chains_told(home .. p) then return nil end
    end
  end
  if project == '' or type(chain.project) == 'string' or type(chain.team) ~= 'string' then return chain.nodes end
  local told = call('HGET', tag .. ':p:' .. chain.team .. '|' .. project, 'chain')
  local before = chain_from(told)
  if before and before.team ~= chain.team then before, told = nil, nil end  -- Names run together, as in check.lua.
  if not before and (told or not chains_told(chain.nodes[1][2])) then return nil end
  local links, seen = {}, {}
  for _, part in ipairs({before and before.nodes or {}, chain.nodes}) do
    for _, link in ipairs(part) do
      if not seen[link[1]] then
        seen[link[1]] = true
        links[#links + 1] = link
      end
    end
  end
  return links
end

-- What the owner has told of a node's cap; nil for a node without one, or while it is not told.
local function told_of(node)
  local told = decoded(call('HGET', tag .. ':s:' .. node, 'cap'))
  return told and number(told.left) and number(told.at) and number(told.ends_at) and told or nil
end

local function keep(record)
  local life = math.ceil(math.max(0, record['until'] - now)) + DAY_S
  call('SET', tag .. ':r:' .. lease, cjson.encode(record), 'EX', life)
end

local kept = op ~= 'recount' and decoded(call('GET', tag .. ':r:' .. lease)) or nil

if op == 'reserve' then
  local amount, ends_at, stale_after = tonumber(ARGV[4]), now + tonumber(ARGV[5]), tonumber(ARGV[7])
  if kept then
    if kept.state ~= 'open' or kept['until'] <= now then
      return '{"granted":false,"status":409,"code":"lease_ended"}'
    end
    return cjson.encode({granted = true, status = 200, ['until'] = kept['until'], again = true})
  end
  local links = links_of(ARGV[6])
  if not links then return '{"granted":false,"known":"none"}' end
  local holders, tightest, free = {}, nil, nil
  for _, link in ipairs(links) do
    local node, told, all_told = link[1], told_of(link[1]), all_told_at(link)
    if not (all_told and now - all_told <= stale_after) and not CAUTION[link[3]] then
      count('unavailable')
      return cjson.encode({granted = false, status = 503, code = 'unavailable', node = node, retry_after = 5,
        reason = 'what is left is not known now and on_unavailable is closed'})
    end
    if told then
      sweep(node, told.at)
      -- A new period begins with the cap of its own, before the owner has said so.
      local all = now < told.ends_at and told.left or number(told.next) or 0
      local left = all - tonumber(call('HGET', (held(node)), SUM) or '0')
      if not free or left < free then tightest, free = {node, told, all}, left end
    end
    if told or not all_told then holders[#holders + 1] = node end
  end
  if free and amount > free then
    count('refused')
    local node, told, all = tightest[1], tightest[2], tightest[3]
    local no = {granted = false, status = 429, node = node, left = math.max(0, free)}
    if amount > all then
      no.code, no.reset_at = 'budget_exceeded', now < told.ends_at and told.ends_at or nil
      no.reason = 'what is left of the cap of ' .. node .. ' is less than the call may cost'
    else
      -- Only what others hold is in the way: some of it comes back when they settle and the owner has counted them.
      local _, _, settled = held(node)
      local first = tonumber(call('ZRANGE', settled, 0, 0, 'WITHSCORES')[2] or '')
      no.code, no.retry_after = 'budget_held', math.max(0.1, math.min(5, first and first - now or 1))
      no.reason = 'what is left of the cap of ' .. node .. ' is held for other calls'
    end
    return cjson.encode(no)
  end
  for _, node in ipairs(holders) do
    add(node, amount, ends_at)
    call('SADD', tag .. ':n', node)
  end
  keep({state = 'open', amount = amount, ['until'] = ends_at, nodes = holders[1] and holders or nil})
  count('reserved')
  return cjson.encode({granted = true, status = 200, ['until'] = ends_at, node = tightest and tightest[1],
    left = free and free - amount})
end

if op == 'settle' then
  local cost, seen_after, settled_until = tonumber(ARGV[4]), tonumber(ARGV[6]), now + tonumber(ARGV[7])
  if kept and kept.state == 'settled' then return '{"settled":true,"again":true}' end
  local nodes = kept and kept.nodes or {}
  if not kept then
    -- Redis has lost it, or it was granted while Redis was away: what was spent counts all the same.
    for _, link in ipairs(links_of(ARGV[5]) or {}) do
      if told_of(link[1]) or not all_told_at(link) then nodes[#nodes + 1] = link[1] end
    end
    count('unknown')
  elseif kept.state == 'released' or kept['until'] <= now then
    count('late')
  end
  local reserved = kept and kept.amount or 0
  for _, node in ipairs(nodes) do
    forget(node, lease)
    add(node, cost, settled_until, seen_after)
    call('SADD', tag .. ':n', node)
  end
  if kept and cost > reserved then
    count('overrun')
    count('overrun_nano', cost - reserved)
  end
  keep({state = 'settled', amount = cost, ['until'] = settled_until, nodes = nodes[1] and nodes or nil})
  count('settled')
  return cjson.encode({settled = true, reserved = reserved})
end

if op == 'release' then
  if not kept or kept.state ~= 'open' then return '{"released":false}' end
  for _, node in ipairs(kept.nodes or {}) do forget(node, lease) end
  kept.state = 'released'
  keep(kept)
  count('released')
  return '{"released":true}'
end

if op == 'recount' then
  local node = string.match(KEYS[1], '^{[^}]+}:l:(.*)$')
  local told = told_of(node)
  sweep(node, told and told.at)
  local found, sum, open, n = call('HGETALL', KEYS[1]), 0, 0, 0
  local _, _, settled = held(node)
  local was = 0
  for i = 1, #found, 2 do
    if found[i] == SUM then
      was = tonumber(found[i + 1])
    else
      sum, n = sum + tonumber(found[i + 1]), n + 1
      if not call('ZSCORE', settled, found[i]) then open = open + tonumber(found[i + 1]) end
    end
  end
  if sum ~= was then call('HSET', KEYS[1], SUM, whole(sum)) end
  if n == 0 then
    call('DEL', KEYS[1])
    call('SREM', tag .. ':n', node)
  end
  return cjson.encode({drift = was - sum, held = sum, open = open, leases = n})
end

return redis.error_reply('ERR unknown operation ' .. tostring(op))
