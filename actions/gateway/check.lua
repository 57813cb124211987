#!lua flags=allow-oom
-- One check of one call, in one round trip. README.md beside this file is the contract.
-- KEYS[1]: the hash of the API key: its chain, and the decisions about this key's calls only.
-- ARGV: model, environment or "", project or "", now, stale_after_s.
-- Every other name read here begins with the hash tag of KEYS[1], so it lives in the same slot of a cluster.
-- Functions stand below the early return because Lua makes them anew on every run.

local call = redis.call
local tag, requested = string.match(KEYS[1], '^{[^}]+}'), ARGV[1]
local now, stale_after = tonumber(ARGV[4]), tonumber(ARGV[5])
-- A mode that is not known is handled as closed.
local CAUTION = {open = 1, last_decision = 2}

local function text(value) return type(value) == 'string' and value ~= '' and value or nil end
local function number(value) return type(value) == 'number' and value or nil end

local function decoded(raw)
  local ok, value = pcall(cjson.decode, raw)
  return ok and type(value) == 'table' and value or nil
end

-- nil: absent; false: there, but not of this version of the contract.
local function chain_from(raw)
  if not raw then return nil end
  local chain = decoded(raw)
  return chain and chain.v == 1 and type(chain.nodes) == 'table' and #chain.nodes > 0 and chain or false
end

local chain, known = nil, 'key'
local own = call('HGETALL', KEYS[1])
for i = 1, #own, 2 do
  if own[i] == 'chain' then chain = chain_from(own[i + 1]) end
end
if chain == nil then chain, known = chain_from(call('HGET', tag .. ':u', 'chain')), 'untagged' end
local NONE = '{"known":"none","marks":"missing"}'
if not chain then return NONE end

-- Since when this Redis has its contents, if that was said: marks from before vouch for what is lost.
local since = tonumber(call('HGET', tag .. ':m', 'since') or '') or 0

-- Whether all chains of a partition have been written since.
local function chains_told(field)
  local raw = since > 0 and call('HGET', tag .. ':m', field .. '|chains')
  local mark = raw and decoded(raw)
  return since == 0 or (mark and number(mark.at) or 0) >= since
end

-- The key's links, those of the project the caller names in front; a node once.
local links, lists, lost = chain.nodes, {chain.models}, nil
if text(ARGV[3]) and not text(chain.project) and text(chain.team) then
  local project = chain_from(call('HGET', tag .. ':p:' .. chain.team .. '|' .. ARGV[3], 'chain'))
  local seen = {}
  if project == false then return NONE end
  if project and project.team ~= chain.team then project = nil end  -- Names run together: `c|a` and `b`, `c` and `a|b`.
  links = {}
  if project == nil and not chains_told(chain.nodes[1][2]) then lost = chain.nodes[1][2] end
  if project then lists[#lists + 1] = project.models end
  for _, part in ipairs({project and project.nodes or {}, chain.nodes}) do
    for _, link in ipairs(part) do
      if not seen[link[1]] then
        seen[link[1]] = true
        links[#links + 1] = link
      end
    end
  end
end

-- Marks: `fresh`, `stale` or `missing`, and the most cautious mode of the links not fresh (of all if all are).
local fields, modes, place = {}, {}, {}
for _, link in ipairs(links) do
  local field, mode = link[2], link[3]
  local i = place[field]
  if not i then
    i = #fields + 1
    fields[i], modes[i], place[field] = field, mode, i
  elseif (CAUTION[mode] or 3) > (CAUTION[modes[i]] or 3) then
    modes[i] = mode
  end
end
-- A key without a chain is unknown only if every partition that could own it has said all it has.
if known == 'untagged' then
  local home = string.match(links[1][2], '^(.*/)')
  for p = 0, (number(chain.partitions) or 0) - 1 do
    if not chains_told(home .. p) then return NONE end
    if not place[home .. p] then fields[#fields + 1], modes[#fields + 1] = home .. p, links[1][3] end
  end
end
local marks, mode, any, told = 'fresh', nil, nil, {}
for first = 1, #fields, 1000 do  -- Lua passes some thousands of arguments at most.
  local last = math.min(first + 999, #fields)
  for _, raw in ipairs(call('HMGET', tag .. ':m', unpack(fields, first, last))) do told[#told + 1] = raw end
end
for i, raw in ipairs(told) do
  local mark = raw and decoded(raw)
  local at = mark and number(mark.at)
  if at and at < since or fields[i] == lost then at = nil end
  if not at or now - at > stale_after then
    if not at then marks = 'missing' elseif marks == 'fresh' then marks = 'stale' end
    if not mode or (CAUTION[modes[i]] or 3) > (CAUTION[mode] or 3) then mode = modes[i] end
  end
  if not any or (CAUTION[modes[i]] or 3) > (CAUTION[any] or 3) then any = modes[i] end
end
mode = mode or any

-- Raw decisions: order of the node in the chain, node, scope and policy, JSON. Decoding is what a check costs most:
-- not for those that are lifted, or about environments whose list in the field's name does not hold this one.
local LIFTED, ELSEWHERE = '{"verdict":"allow"', 'environment='
local environment = text(chain.environment) or text(ARGV[2])
local raws = {}
for order, link in ipairs(links) do
  local found = call('HGETALL', tag .. ':d:' .. link[1])
  for i = 1, #found, 2 do
    if string.sub(found[i + 1], 1, #LIFTED) ~= LIFTED and (string.sub(found[i], 1, #ELSEWHERE) ~= ELSEWHERE
      or environment and string.find(found[i], environment, 1, true)) then
      raws[#raws + 1] = {order, link[1], found[i], found[i + 1]}
    end
  end
end
for i = 1, #own, 2 do
  for order, link in ipairs(own[i] ~= 'chain' and links or {}) do
    local node = link[1]  -- It may hold a | itself.
    if string.sub(own[i], 1, #node + 1) == node .. '|' then
      raws[#raws + 1] = {order, node, string.sub(own[i], #node + 2), own[i + 1]}
    end
  end
end

if not raws[1] and not lists[1] and marks == 'fresh' then
  return '{"verdict":"allow","status":200,"known":"' .. known .. '","marks":"fresh","on_unavailable":' .. cjson.encode(mode) .. '}'
end

local RANK = {allow = 0, throttle = 1, downgrade = 2, queue = 3, approve = 4, block = 5}
local DAY_S, LONGEST_S = 86400, 400 * 86400
-- A bucket last touched this far ahead of `now` was touched by another clock: it starts anew.
local MAX_SKEW_S = 60
-- Doubles of epoch seconds are 0.2 us apart: who waits retry_after must pass. The debt is carried, so the rate is exact.
local ALMOST = 1 - 1e-3

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

local function listed(list, value)
  if type(list) ~= 'table' then return true end
  for _, item in ipairs(list) do if item == value then return true end end
  return false
end

-- Where the key stands in a policy's rollout, from 0 to 100. It never moves: a wider share takes no key back.
local function place_in(policy)
  local key = string.match(KEYS[1], '^{[^}]+}:k:(.*)$')
  return tonumber(string.sub(redis.sha1hex((text(policy) or '') .. '|' .. key), 1, 8), 16) / 2 ^ 32 * 100
end

-- Decisions that bind this call, whatever its model; and those whose rollout has not reached its key.
local standing, beyond = {}, {}
for _, raw in ipairs(raws) do
  local decision = obeyable(decoded(raw[4]))
  if decision.verdict ~= 'allow' and decision.expires_at > now and listed(decision.environment, environment) then
    decision.order, decision.node, decision.field = raw[1], raw[2], raw[3]
    local into = number(decision.percent) and place_in(decision.policy) >= decision.percent and beyond or standing
    into[#into + 1] = decision
  end
end

-- Whether `name` is `pattern`, in which each * stands for any run of characters. Linear: callers choose the name.
local function matches(pattern, name)
  local star = string.find(pattern, '*', 1, true)
  if not star then return pattern == name end
  if string.sub(name, 1, star - 1) ~= string.sub(pattern, 1, star - 1) then return false end
  local parts, from = {}, star
  for part in string.gmatch(pattern .. '*', '([^*]*)%*') do parts[#parts + 1] = part end
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

-- A model off a list is refused like a standing block, whether it was asked for or is what a downgrade leads to.
local function off_list(model)
  for _, list in ipairs(lists) do
    if not about_model({models = list}, model) then
      return {
        verdict = 'block', status = 403, code = 'model_not_approved', reason = model .. ' is not among the approved models',
        node = links[1][1], expires_at = now + DAY_S, order = 0, field = '',
      }
    end
  end
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
local function judged(model)
  local worst, throttles = off_list(model), {}
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
  local kept, since = string.match(call('GET', throttle.bucket) or '', '^(%S+) (%S+)$')
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
      local its = (1 - throttle.tokens) / throttle.max_rps
      if its > wait then refuses, wait = throttle, its end
    elseif not left or throttle.tokens - 1 < left then
      tightest, left = throttle, throttle.tokens - 1
    end
  end
  if refuses then return refuses, wait end
  for _, throttle in ipairs(throttles) do
    local life = math.min(LONGEST_S, math.ceil(throttle.expires_at - now) + DAY_S)
    call('SET', throttle.bucket, string.format('%.17g %.17g', throttle.tokens - 1, throttle.at), 'EX', life)
  end
  return tightest, nil, left and math.max(0, math.floor(left + 1e-3))
end

-- The strictest of what would bind this call if every rollout were at its end.
local would = nil
for _, decision in ipairs(beyond) do
  if about_model(decision, requested) and stricter(decision, would) then would = decision end
end

local TOLD = {'status', 'code', 'reason', 'action_id', 'policy', 'node', 'reset_at', 'expires_at', 'max_rps', 'burst'}

local function say(verdict, decision, more)
  local reply = {verdict = verdict, known = known, marks = marks, on_unavailable = mode}
  for _, name in ipairs(TOLD) do reply[name] = decision[name] end
  for name, value in pairs(more or {}) do reply[name] = value end
  if would then reply.would, reply.would_action = would.verdict, would.action_id end
  return cjson.encode(reply)
end

-- A downgrade's model is judged like any other, until one is not downgraded further.
local model, downgrade, seen = requested, nil, {[requested] = true}
local worst, throttles = judged(model)
while worst and worst.verdict == 'downgrade' and not seen[worst.model] do
  downgrade, model = worst, worst.model
  seen[model] = true
  worst, throttles = judged(model)
end

if worst and worst.verdict ~= 'downgrade' then return say(worst.verdict, worst) end
if marks ~= 'fresh' and not CAUTION[mode] then
  return say('block', {
    status = 503, code = 'unavailable', reason = 'limits are not known now and on_unavailable is closed',
  }, {retry_after = 5})
end
local throttle, wait, left = debit(throttles)
if wait then return say('throttle', throttle, {retry_after = wait, remaining = 0}) end
if downgrade then return say('downgrade', downgrade, {model = model, remaining = left}) end
throttle = throttle or {}
throttle.code, throttle.reason = nil, nil
return say('allow', throttle, {status = 200, remaining = left})
