-- Takes the lease of the shard that is to run now. Returns its {job, task, output, shard, shards}, or nil if no shard waits.
-- `tasks` are those that the worker serves, `models` those that it holds (JSON lists). A held model may go before fairness
-- by so many shards, for so many seconds, and by `new_s` seconds for a job that never began.
--
-- Whose turn it is: the highest reach; then the tenant with the fewest turns; then its highest priority; then its job with
-- the fewest turns; then the oldest. Turns are counted in shards handed out. One that never had a turn comes first, and
-- goes on half a turn behind the least of the others, so that it neither catches up on what was before it nor waits for it.
-- needs: queue
local attempt, lease, tasks, models, warm_shards, warm_s, new_s = unpack(ARGV)
tasks, warm_shards, warm_s, new_s = cjson.decode(tasks), tonumber(warm_shards), tonumber(warm_s), tonumber(new_s)
local held = {}
for _, model in ipairs(cjson.decode(models)) do held[model] = true end
-- What a tenant was served while the others had no jobs counts for at most so many turns against it.
local CREDIT = 16
-- How many tenants, and jobs of each, are looked at for a held model.
local LOOK = 32

local function least_started(lanes)
  local least
  for _, lane in ipairs(lanes) do
    local score = tonumber(redis.call('ZRANGEBYSCORE', lane, 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2])
    if score and (not least or score < least) then least = score end
  end
  return least
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

-- Returns the tenants with jobs of the highest reach that waits, the one whose turn it is first. Their lanes are those of
-- their highest priority.
local function tenants()
  local best
  for _, task in ipairs(tasks) do
    local score = tonumber(redis.call('ZRANGE', P .. 'ready:' .. task, 0, 0, 'WITHSCORES')[2])
    if score and (not best or score < best) then best = score end
  end
  if not best then return {} end
  local found, by_name, names, least = {}, {}, {}, nil
  for _, task in ipairs(tasks) do
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', P .. 'ready:' .. task, best, best)) do
      local priority, name = member:gsub('^%d:', ''):match('^(%d)/(.*)$')
      local tenant = by_name[name]
      if not tenant then
        tenant = {name = name, priority = priority}
        by_name[name], found[#found + 1], names[#names + 1] = tenant, tenant, name
      end
      if not tenant.lanes or priority > tenant.priority then tenant.priority, tenant.lanes = priority, {} end
      if priority == tenant.priority then table.insert(tenant.lanes, P .. 'ready:' .. task .. ':' .. member) end
    end
  end
  for first = 1, #names, 1000 do
    for i, turns in ipairs(redis.call('HMGET', P .. 'served', unpack(names, first, math.min(first + 999, #names)))) do
      turns = tonumber(turns or '')
      found[first + i - 1].turns = turns
      if turns and (not least or turns < least) then least = turns end
    end
  end
  for _, tenant in ipairs(found) do
    if not tenant.turns then
      tenant.turns = (least or 0) - 0.5
    elseif tenant.turns > least + CREDIT then
      tenant.turns = least + CREDIT
      redis.call('HSET', P .. 'served', tenant.name, tenant.turns)
    end
  end
  table.sort(found, function(a, b) return a.turns < b.turns end)
  -- Of those with equally few turns the one with the oldest job is first.
  local first, head = 1, nil
  for i, tenant in ipairs(found) do
    if tenant.turns > found[1].turns or i > LOOK then break end
    local job = jobs_of(tenant, 1)[1]
    local age = number_of(job.id, 'accepted')
    if not head or age < head then first, head = i, age end
  end
  if #found > 0 then found[1], found[first] = found[first], found[1] end
  return found
end

local function is_held(job)
  return held[redis.call('HGET', job_key(job.id), 'model') or ''] == true
end

-- Returns a job whose model the worker holds, to go before the one whose turn it is, as long as the others don't wait too
-- long for it; else the one whose turn it is.
local function instead_of(fair, order)
  local waited = now() - number_of(fair.id, 'last')
  local is_new = fair.turns < 0
  if next(held) == nil or is_held(fair) or waited > (is_new and new_s or warm_s) then return fair end
  for i, tenant in ipairs(order) do
    if i > LOOK or tenant.turns - fair.tenant.turns > warm_shards then break end
    local jobs = jobs_of(tenant, LOOK)
    for _, job in ipairs(jobs) do
      local passes_new = job.turns >= 0 and (is_new or jobs[1].turns < 0)
      local passes_many = jobs[1].turns >= 0 and job.turns - jobs[1].turns > warm_shards
      if passes_new or passes_many then break end
      if is_held(job) then return job end
    end
  end
  return fair
end

local function count_turn(job)
  redis.call('HSET', P .. 'served', job.tenant.name, job.tenant.turns + 1)
  local turns = job.turns < 0 and (least_started(job.tenant.lanes) or 0) + 0.5 or job.turns + 1
  redis.call('ZADD', job.lane, turns, job.id)
  redis.call('HSET', job_key(job.id), 'turns', turns, 'last', now())
end

local function answer(id, shard)
  local job = redis.call('HMGET', job_key(id), 'task', 'output', 'shards')
  return {id, job[1], job[2], tonumber(shard), tonumber(job[3])}
end

-- The same attempt asks again if the first answer was lost on its way.
local before = redis.call('HMGET', P .. 'took:' .. attempt, 'job', 'shard')
if before[1] and redis.call('HGET', job_key(before[1], 'held'), before[2]) == attempt then
  return answer(before[1], before[2])
end

while true do
  local order = tenants()
  if #order == 0 then return nil end
  local job = instead_of(jobs_of(order[1], 1)[1], order)
  local shard = status_of(job.id) == 'running' and next_shard(job.id)
  if shard then
    count_turn(job)
    hold(job.id, shard, attempt, lease)
    redis.call('HSET', P .. 'took:' .. attempt, 'job', job.id, 'shard', shard)
    redis.call('EXPIRE', P .. 'took:' .. attempt, 60)
    if waiting(job.id) == 0 then leave(job.id) end
    return answer(job.id, shard)
  end
  leave(job.id)
end
