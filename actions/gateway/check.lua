#!lua flags=allow-oom
-- One check of one call, in one round trip. README.md beside this file is the contract.
-- KEYS[1]: the hash of the API key's chain.
-- ARGV: tag ("{sb}"), key, model, environment or "", project or "", now, stale_after_s.
-- Every other name read here begins with the tag that KEYS[1] carries, so it lives in the same slot of a cluster.

local tag, key, requested = ARGV[1], ARGV[2], ARGV[3]
local now, stale_after = tonumber(ARGV[6]), tonumber(ARGV[7])

local RANK = {allow = 0, throttle = 1, downgrade = 2, queue = 3, approve = 4, block = 5}
local CAUTION = {open = 1, last_decision = 2, closed = 3}
local DAY_S, LONGEST_S = 86400, 400 * 86400
-- A bucket last touched this far ahead of `now` was touched by another clock: it starts anew.
local MAX_SKEW_S = 60
-- Doubles of epoch seconds are 0.2 us apart: who waits retry_after must pass. The debt is carried, so the rate is exact.
local ALMOST = 1 - 1e-3

local function text(value) return type(value) == 'string' and value ~= '' and value or nil end
local function number(value) return type(value) == 'number' and value or nil end

local function decoded(raw)
  local ok, value = pcall(cjson.decode, raw)
  return ok and type(value) == 'table' and value or nil
end

-- nil: absent; false: there, but not of this version of the contract.
local function chain_of(name)
  local raw = redis.call('HGET', name, 'chain')
  if not raw then return nil end
  local chain = decoded(raw)
  return chain and chain.v == 1 and type(chain.nodes) == 'table' and chain or false
end

-- The key's links, those of the project the caller names in front; a node once.
local function links_of(chain)
  local links, seen = {}, {}
  local function add(more)
    for _, link in ipairs(more) do
      if not seen[link[1]] then
        seen[link[1]] = true
        links[#links + 1] = link
      end
    end
  end
  local project = text(ARGV[5])
  if project and not text(chain.project) and text(chain.team) then
    local own = chain_of(tag .. ':p:' .. chain.team .. '|' .. project)
    if own then add(own.nodes) end
  end
  add(chain.nodes)
  return links
end

-- The more cautious of two; one that is not known counts as closed.
local function cautious(a, b)
  if not a then return b end
  return (CAUTION[b] or 3) > (CAUTION[a] or 3) and b or a
end

-- `fresh`, `stale` or `missing`, and the most cautious on_unavailable: of the links not fresh, or of all if all are.
local function freshness(links, chain, unknown)
  local fields, cautions, at = {}, {}, {}
  local function ask(field, on_unavailable)
    if not at[field] then
      fields[#fields + 1] = field
      at[field] = #fields
    end
    local i = at[field]
    cautions[i] = cautious(cautions[i], on_unavailable)
  end
  for _, link in ipairs(links) do ask(link[2] .. '/' .. link[3], link[4]) end
  if unknown then
    for p = 0, (number(chain.partitions) or 0) - 1 do ask(links[1][2] .. '/' .. p, links[1][4]) end
  end
  local state, caution, any = 'fresh', nil, nil
  for i, raw in ipairs(redis.call('HMGET', tag .. ':m', unpack(fields))) do
    local mark = raw and decoded(raw)
    local marked_at = mark and number(mark.at)
    if not marked_at or now - marked_at > stale_after then
      if not marked_at then state = 'missing' elseif state == 'fresh' then state = 'stale' end
      caution = cautious(caution, cautions[i])
    end
    any = cautious(any, cautions[i])
  end
  return state, caution or any
end

local function listed(list, value)
  if type(list) ~= 'table' then return true end
  for _, item in ipairs(list) do if item == value then return true end end
  return false
end

-- Whether `name` is `pattern`, in which each * stands for any run of characters. Linear: callers choose the name.
local function matches(pattern, name)
  local parts = {}
  for part in string.gmatch(pattern .. '*', '([^*]*)%*') do parts[#parts + 1] = part end
  if #parts == 1 then return pattern == name end
  if string.sub(name, 1, #parts[1]) ~= parts[1] then return false end
  local from = #parts[1] + 1
  for i = 2, #parts - 1 do
    local _, last = string.find(name, parts[i], from, true)
    if not last then return false end
    from = last + 1
  end
  local tail = #name - #parts[#parts] + 1
  return tail >= from and string.sub(name, tail) == parts[#parts]
end

local function about_model(decision, model)
  if type(decision.models) ~= 'table' then return true end
  for _, pattern in ipairs(decision.models) do
    if type(pattern) == 'string' and matches(pattern, model) then return true end
  end
  return false
end

-- What cannot be obeyed as written is a block: a newer verdict, a throttle without a rate.
local function obeyable(decision)
  if not decision or not number(decision.expires_at) then
    return {
      verdict = 'block', status = 403, code = 'unreadable_decision', expires_at = now + DAY_S,
      reason = 'a decision could not be read',
    }
  end
  local verdict = decision.verdict
  if (type(verdict) ~= 'string' or not RANK[verdict])
    or (verdict == 'throttle' and not (number(decision.max_rps) and decision.max_rps > 0))
    or (verdict == 'downgrade' and not text(decision.model)) then
    decision.verdict, decision.status, decision.code = 'block', 403, text(decision.code) or 'unknown_verdict'
  end
  return decision
end

-- Decisions on the links that bind this call, whatever its model.
local function standing_on(links, environment)
  local standing = {}
  for order, link in ipairs(links) do
    for _, name in ipairs({':d:' .. link[1], ':d:' .. link[1] .. '@' .. key}) do
      local found = redis.call('HGETALL', tag .. name)
      for i = 1, #found, 2 do
        local decision = obeyable(decoded(found[i + 1]))
        if decision.verdict ~= 'allow' and decision.expires_at > now
          and listed(decision.environment, environment) and listed(decision.keys, key) then
          decision.node, decision.order, decision.field = link[1], order, found[i]
          standing[#standing + 1] = decision
        end
      end
    end
  end
  return standing
end

local function ends_at(decision) return number(decision.reset_at) or decision.expires_at end

-- The strictest; among equals the one that ends last, then the nearest to the key.
local function stricter(a, b)
  if not b then return true end
  if RANK[a.verdict] ~= RANK[b.verdict] then return RANK[a.verdict] > RANK[b.verdict] end
  if ends_at(a) ~= ends_at(b) then return ends_at(a) > ends_at(b) end
  if a.order ~= b.order then return a.order < b.order end
  return a.field < b.field
end

-- The strictest decision for `model` and the throttles beside it; a downgrade to `model` itself is obeyed already.
local function judged(standing, model)
  local worst, throttles = nil, {}
  for _, decision in ipairs(standing) do
    if about_model(decision, model) then
      if decision.verdict == 'throttle' then
        throttles[#throttles + 1] = decision
      elseif not (decision.verdict == 'downgrade' and decision.model == model) and stricter(decision, worst) then
        worst = decision
      end
    end
  end
  return worst, throttles
end

local function tokens_of(throttle)
  local full = math.max(1, number(throttle.burst) or math.ceil(throttle.max_rps))
  local kept, since = string.match(redis.call('GET', throttle.bucket) or '', '^(%S+) (%S+)$')
  kept, since = kept and tonumber(kept), since and tonumber(since)
  if not kept or not since or since > now + MAX_SKEW_S then return full, now end
  local at = math.max(since, now)
  return math.min(full, kept + (at - since) * throttle.max_rps), at
end

-- Take one token from every bucket, or from none: returns the throttle that refuses longest, else the tightest.
local function debit(throttles)
  local refuses, wait, tightest, left = nil, 0, nil, nil
  for _, throttle in ipairs(throttles) do
    throttle.bucket = tag .. ':b:' .. throttle.node .. '|' .. throttle.field
    throttle.tokens, throttle.at = tokens_of(throttle)
    if throttle.tokens < ALMOST then
      local own = (1 - throttle.tokens) / throttle.max_rps
      if own > wait then refuses, wait = throttle, own end
    elseif not left or throttle.tokens - 1 < left then
      tightest, left = throttle, throttle.tokens - 1
    end
  end
  if refuses then return refuses, wait end
  for _, throttle in ipairs(throttles) do
    local life = math.min(LONGEST_S, math.ceil(throttle.expires_at - now) + DAY_S)
    redis.call('SET', throttle.bucket, string.format('%.17g %.17g', throttle.tokens - 1, throttle.at), 'EX', life)
  end
  return tightest, nil, left and math.max(0, math.floor(left + 1e-3))
end

local chain, known = chain_of(KEYS[1]), 'key'
if chain == nil then chain, known = chain_of(tag .. ':u'), 'untagged' end
if not chain then return cjson.encode({known = 'none', marks = 'missing'}) end

local links = links_of(chain)
if not links[1] then return cjson.encode({known = 'none', marks = 'missing'}) end
local marks, caution = freshness(links, chain, known == 'untagged')
local reply = {known = known, marks = marks, on_unavailable = caution}
local TOLD = {'status', 'code', 'reason', 'action_id', 'policy', 'node', 'reset_at', 'expires_at', 'max_rps', 'burst'}

local function say(verdict, decision, more)
  reply.verdict = verdict
  for _, name in ipairs(TOLD) do reply[name] = decision[name] end
  for name, value in pairs(more or {}) do reply[name] = value end
  return cjson.encode(reply)
end

-- A downgrade's model is judged like any other, until one is not downgraded further.
local standing = standing_on(links, text(chain.environment) or text(ARGV[4]))
local model, downgrade, seen = requested, nil, {[requested] = true}
local worst, throttles = judged(standing, model)
while worst and worst.verdict == 'downgrade' and not seen[worst.model] do
  downgrade, model = worst, worst.model
  seen[model] = true
  worst, throttles = judged(standing, model)
end

if worst and worst.verdict ~= 'downgrade' then return say(worst.verdict, worst) end
if marks ~= 'fresh' and (CAUTION[caution] or 3) == 3 then
  return say('block', {
    status = 503, code = 'unavailable', reason = 'limits are not known now and on_unavailable is closed',
  })
end
local throttle, wait, left = debit(throttles)
if wait then return say('throttle', throttle, {retry_after = wait, remaining = 0}) end
if downgrade then return say('downgrade', downgrade, {model = model, remaining = left}) end
return say('allow', throttle or {}, {status = 200, code = '', reason = '', remaining = left})
