-- Takes the lease of the shard that is to run now. Returns its {job, task, output, shard, shards}, or nil if no shard waits;
-- 0 if all that wait are to be left to other hosts.
-- `tasks` are those that the worker serves, `models` those that it holds (JSON lists). A held model may go before fairness
-- by so many shards, for so many seconds, and by `new_s` seconds for a job that never began. `able` are the hosts that could
-- take the shards, `avoid` the jobs that lately failed on this one. A shard that failed here waits for a host
-- where it failed less often.
--
-- Whose turn it is: the highest reach; then the tenant with the fewest turns; then its highest priority; then its job with
-- the fewest turns; then the oldest. Turns are counted in shards handed out. One that never had a turn comes first, and
-- goes on half a turn behind the least of the others, so that it neither catches up on what was before it nor waits for it.
-- What is done here is bounded, however many tenants and jobs there are.
-- needs: queue
local attempt, host, able, avoid, lease, tasks, models, warm_shards, warm_s, new_s = unpack(ARGV)
able, tasks, models = cjson.decode(able), cjson.decode(tasks), cjson.decode(models)
warm_shards, warm_s, new_s = tonumber(warm_shards), tonumber(warm_s), tonumber(new_s)
local held, passed, left = {}, {}, false
for _, model in ipairs(models) do held[model] = true end
if #able > 1 then
  for _, job in ipairs(cjson.decode(avoid)) do passed[job] = true end
end
-- How many tenants, and jobs of each, are looked at; tenants with equally few turns; and jobs of a held model.
local LOOK, EQUALS, WARM = 16, 4, 4

-- Returns whether the shard failed more often on this host than on one of the others.
local function to_leave(id, shard)
  local seen = redis.call('HGET', job_key(id, 'blamed'), shard)
  seen = seen and cjson.decode(seen)
  if not seen or not seen[host] then return false end
  local function failures(of)
    local count = 0
    for _, times in pairs(seen[of] or {}) do count = count + times end
    return count
  end
  for _, other in ipairs(able) do
    if failures(other) < failures(host) then return true end
  end
  return false
end

-- Takes the next shard from the job's list; returns nil if every shard is done, in hand, or to be left to other hosts.
local function next_shard(id)
  local function free(shard)
    return not settled(id, shard) and redis.call('HEXISTS', job_key(id, 'held'), shard) == 0
  end
  local list = job_key(id, 'again')
  for _ = 1, math.min(LOOK, redis.call('LLEN', list)) do
    local shard = redis.call('LPOP', list)
    if free(shard) then
      if not to_leave(id, shard) then return shard end
      redis.call('RPUSH', list, shard)
      left = true
    end
  end
  local first, shards = number_of(id, 'next'), number_of(id, 'shards')
  while first < shards and not free(first) do
    -- Skips a long row of committed shards in one step; BITPOS starts at a whole byte.
    local open = redis.call('BITPOS', job_key(id, 'done'), 0, math.floor(first / 8))
    first = math.max(first + 1, open)
  end
  redis.call('HSET', job_key(id), 'next', math.min(first + 1, shards))
  if first < shards then return tostring(first) end
end

local function turns_of(lane, id)
  return tonumber(redis.call('ZSCORE', lane, id) or '')
end

-- Returns the highest reach of those that wait, and the tasks that have jobs of it.
local function highest_reach()
  local best, found = nil, {}
  for _, task in ipairs(tasks) do
    local score = tonumber(redis.call('ZRANGE', P .. 'ready:' .. task, 0, 0, 'WITHSCORES')[2])
    if score and (not best or score < best) then best, found = score, {} end
    if score and score == best then found[#found + 1] = task end
  end
  return best and 9 - best, found
end

-- Finds the tenants of the task and the reach anew.
local function reindex(task, reach)
  for _, lane in ipairs(redis.call('ZRANGEBYSCORE', P .. 'ready:' .. task, 9 - reach, 9 - reach)) do
    enter_order(task, reach, lane:gsub('^%d:', ''):match('^%d/(.*)$'))
  end
end

-- Adds the lanes of the tenant's highest priority to it. Returns false if it has none.
local function find_lanes(tenant, reach, among)
  tenant.lanes = {}
  local priority = nil
  for _, task in ipairs(among) do
    local ready, order = P .. 'ready:' .. task, order_key(task, reach)
    if #among == 1 or redis.call('ZSCORE', order, tenant.name) then
      local at = top_priority(ready, reach, tenant.name)
      if not at then
        redis.call('ZREM', order, tenant.name)
      elseif not priority or at >= priority then
        if at ~= priority then priority, tenant.lanes = at, {} end
        table.insert(tenant.lanes, ready .. ':' .. lane_name(reach, at, tenant.name))
      end
    end
  end
  return #tenant.lanes > 0
end

-- Returns the first tenants of the reach, those with the fewest turns first, or nil if an index was found to be wrong.
local function tenants(reach, among)
  local found, by_name, names = {}, {}, {}
  for _, task in ipairs(among) do
    local order = order_key(task, reach)
    if redis.call('EXISTS', order) == 0 then reindex(task, reach) end
    local first = redis.call('ZRANGE', order, 0, LOOK - 1, 'WITHSCORES')
    for i = 1, #first, 2 do
      local tenant = by_name[first[i]]
      if not tenant then
        tenant = {name = first[i], turns = tonumber(first[i + 1]), scores = {}}
        by_name[first[i]], found[#found + 1], names[#names + 1] = tenant, tenant, first[i]
      end
      tenant.turns = math.min(tenant.turns, tonumber(first[i + 1]))
      tenant.scores[order] = tonumber(first[i + 1])
    end
  end
  if #names == 0 then return {} end
  local whole = true
  for i, turns in ipairs(redis.call('HMGET', P .. 'served', unpack(names))) do
    turns = tonumber(turns or '')
    for order, score in pairs(found[i].scores) do
      if turns and turns ~= score then
        redis.call('ZADD', order, 'XX', turns, names[i])
        whole = false
      end
    end
    found[i].served = turns
  end
  if not whole then return nil end
  table.sort(found, function(a, b)
    if a.turns ~= b.turns then return a.turns < b.turns end
    return a.name < b.name
  end)
  return found
end

-- Returns the first `count` jobs of the tenant, those with the fewest turns first.
local function jobs_of(tenant, count)
  local found = {}
  for _, lane in ipairs(tenant.lanes) do
    local pairs_ = redis.call('ZRANGE', lane, 0, count - 1, 'WITHSCORES')
    for i = 1, #pairs_, 2 do
      found[#found + 1] = {id = pairs_[i], turns = tonumber(pairs_[i + 1]), tenant = tenant, lane = lane}
    end
  end
  table.sort(found, function(a, b)
    if a.turns ~= b.turns then return a.turns < b.turns end
    return a.id < b.id
  end)
  return found
end

-- Returns the tenant's first job that isn't passed over.
local function job_of(tenant)
  for _, count in ipairs({1, LOOK}) do
    for _, job in ipairs(jobs_of(tenant, count)) do
      if not passed[job.id] then return job end
    end
  end
end

-- Returns the job whose turn it is. Of tenants with equally few turns the one with the oldest job is first.
local function fair_job(order, reach, among)
  local best, age
  for i, tenant in ipairs(order) do
    if best and (tenant.turns > best.tenant.turns or i > EQUALS) then break end
    local job = find_lanes(tenant, reach, among) and job_of(tenant)
    local accepted = job and number_of(job.id, 'accepted')
    if job and (not best or accepted < age) then best, age = job, accepted end
  end
  return best
end

-- Returns the job as one to run before `fair`, or nil if the others would wait too long for it.
local function before(fair, id, reach, among, is_new)
  local place = place_of(id)
  local lane = lane_key(place)
  local turns = turns_of(lane, id)
  if not turns then
    redis.call('ZREM', P .. 'warm:' .. place.model, id)
    return nil
  end
  if passed[id] or tonumber(place.reach) ~= reach or (is_new and turns >= 0) then return nil end
  local tenant = {name = place.tenant}
  tenant.turns = tonumber(redis.call('ZSCORE', order_key(place.task, place.reach), tenant.name) or '')
  if not tenant.turns or tenant.turns - fair.tenant.turns > warm_shards then return nil end
  if not find_lanes(tenant, reach, among) then return nil end
  local urgent = false
  for _, of_tenant in ipairs(tenant.lanes) do urgent = urgent or of_tenant == lane end
  if not urgent then return nil end
  local first = jobs_of(tenant, 1)[1]
  local passes_new = turns >= 0 and first.turns < 0
  local passes_many = first.turns >= 0 and turns - first.turns > warm_shards
  if passes_new or passes_many then return nil end
  return {id = id, turns = turns, tenant = tenant, lane = lane}
end

-- Returns a job whose model the worker holds, to go before the one whose turn it is, as long as the others don't wait too
-- long for it; else the one whose turn it is.
local function instead_of(fair, reach, among)
  local waited = now() - number_of(fair.id, 'last')
  local is_new = fair.turns < 0
  if #models == 0 or held[place_of(fair.id).model] or waited > (is_new and new_s or warm_s) then return fair end
  local best
  for i = 1, math.min(#models, LOOK) do
    for _, id in ipairs(redis.call('ZRANGE', P .. 'warm:' .. models[i], 0, WARM - 1)) do
      local job = before(fair, id, reach, among, is_new)
      if job and (not best or job.tenant.turns < best.tenant.turns) then best = job end
      if job then break end
    end
  end
  return best or fair
end

local function least_started(lanes)
  local least
  for _, lane in ipairs(lanes) do
    local score = tonumber(redis.call('ZRANGEBYSCORE', lane, 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2])
    if score and (not least or score < least) then least = score end
  end
  return least
end

-- Returns the turns that the tenant has now: one that never had any begins half a turn behind the next one.
local function tenant_turns(tenant, reach, among)
  if redis.call('HEXISTS', P .. 'served', tenant.name) == 1 then return tenant.turns end
  local least
  for _, task in ipairs(among) do
    local first = redis.call('ZRANGE', order_key(task, reach), 0, 1, 'WITHSCORES')
    for i = 1, #first, 2 do
      local score = tonumber(first[i + 1])
      if first[i] ~= tenant.name and (not least or score < least) then least = score end
    end
  end
  return math.max(tenant.turns, (least or 0) - 0.5)
end

local function count_turn(job, reach, among)
  local served = tenant_turns(job.tenant, reach, among) + 1
  redis.call('HSET', P .. 'served', job.tenant.name, served)
  for _, task in ipairs(among) do redis.call('ZADD', order_key(task, reach), 'XX', served, job.tenant.name) end
  local turns = job.turns < 0 and (least_started(job.tenant.lanes) or 0) + 0.5 or job.turns + 1
  redis.call('ZADD', job.lane, turns, job.id)
  redis.call('HSET', job_key(job.id), 'turns', turns, 'last', now())
end

local function answer(id, shard)
  local job = redis.call('HMGET', job_key(id), 'task', 'output', 'shards')
  return {id, job[1], job[2], tonumber(shard), tonumber(job[3])}
end

-- Returns the job whose shard is handed out next, the reach it has, and the tasks that have jobs of that reach.
local function pick()
  for _ = 1, 64 do
    local reach, among = highest_reach()
    if not reach then return nil end
    local order = tenants(reach, among)
    if order then
      local fair = fair_job(order, reach, among)
      if not fair then
        left = left or next(passed) ~= nil
        return nil
      end
      return instead_of(fair, reach, among), reach, among
    end
  end
end

-- The same attempt asks again if the first answer was lost on its way.
local before_ = redis.call('HMGET', P .. 'took:' .. attempt, 'job', 'shard')
if before_[1] and redis.call('HGET', job_key(before_[1], 'held'), before_[2]) == attempt then
  return answer(before_[1], before_[2])
end

for _ = 1, 1000 do
  local job, reach, among = pick()
  if not job then return left and 0 or nil end
  local leaves_some = left
  left = false
  local shard = status_of(job.id) == 'running' and next_shard(job.id)
  if shard then
    count_turn(job, reach, among)
    hold(job.id, shard, attempt, host, lease)
    redis.call('HSET', P .. 'took:' .. attempt, 'job', job.id, 'shard', shard)
    redis.call('EXPIRE', P .. 'took:' .. attempt, 3600)
    if waiting(job.id) == 0 then leave(job.id) end
    return answer(job.id, shard)
  end
  if left then passed[job.id] = true else leave(job.id) end
  left = left or leaves_some
end
