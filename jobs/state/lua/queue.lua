-- The ready queue: the jobs that have shards to hand out, in lanes of equal task, reach, priority and tenant. A job's reach
-- orders it among those of all tenants, its priority among its tenant's own. The lanes are the truth; order:… and warm:… are
-- indexes of them, which an earlier version doesn't keep: a reader checks what it finds there, and the sweep mends them.

-- What a tenant was served while the others had no jobs counts for at most so many turns against it.
local CREDIT = 16

-- Earlier versions had no reach, and wrote the priority alone.
local function lane_name(reach, priority, tenant)
  local lane = priority .. '/' .. tenant
  if tostring(reach) ~= tostring(priority) then lane = reach .. ':' .. lane end
  return lane
end

local function order_key(task, reach)
  return P .. 'order:' .. task .. ':' .. reach
end

-- Returns the job's task, priority, tenant, reach and model.
local function place_of(id)
  local job = redis.call('HMGET', job_key(id), 'task', 'priority', 'tenant', 'reach', 'model')
  return {task = job[1], priority = job[2], tenant = job[3] or '', reach = job[4] or job[2], model = job[5] or ''}
end

local function ready_key(place)
  return P .. 'ready:' .. place.task
end

local function lane_key(place)
  return ready_key(place) .. ':' .. lane_name(place.reach, place.priority, place.tenant)
end

-- Returns how many shards wait in the job's list: an upper bound, since some of them may be done or in hand.
local function waiting(id)
  return redis.call('LLEN', job_key(id, 'again')) + number_of(id, 'shards') - number_of(id, 'next')
end

-- Adds the tenant to those of the task and the reach, if it isn't there. One that never had a turn comes first; one that
-- waited elsewhere isn't more than CREDIT before the others.
local function enter_order(task, reach, tenant)
  local order = order_key(task, reach)
  if redis.call('ZSCORE', order, tenant) then return end
  local first = redis.call('ZRANGE', order, 0, 0, 'WITHSCORES')
  local least = tonumber(first[2])
  local turns = tonumber(redis.call('HGET', P .. 'served', tenant) or '')
  if not turns then
    local is_new = least and redis.call('HEXISTS', P .. 'served', first[1]) == 0
    turns = (least or 0) - (is_new and 0 or 0.5)
  elseif least and turns < least - CREDIT then
    turns = least - CREDIT
    redis.call('HSET', P .. 'served', tenant, turns)
  end
  redis.call('ZADD', order, turns, tenant)
end

-- Adds the job to those that have shards to hand out, if it has some and is running.
local function make_ready(id)
  if status_of(id) ~= 'running' or waiting(id) <= 0 then return end
  local place = place_of(id)
  local jobs = lane_key(place)
  local turns = tonumber(redis.call('HGET', job_key(id), 'turns') or '')
  if turns then
    local least = redis.call('ZRANGEBYSCORE', jobs, 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
    turns = math.max(turns, tonumber(least or '0'))
  else
    turns = number_of(id, 'accepted') - 1e12
    redis.call('HSETNX', job_key(id), 'last', now())
  end
  redis.call('ZADD', jobs, 'NX', turns, id)
  redis.call('ZADD', ready_key(place), 9 - tonumber(place.reach), lane_name(place.reach, place.priority, place.tenant))
  enter_order(place.task, place.reach, place.tenant)
  if place.model ~= '' then redis.call('ZADD', P .. 'warm:' .. place.model, 'NX', now(), id) end
end

-- Returns the highest priority of the tenant's lanes of the reach, or nil if it has none.
local function top_priority(ready, reach, tenant)
  local lanes = {}
  for at = 0, 9 do lanes[at + 1] = lane_name(reach, at, tenant) end
  local found = redis.call('ZMSCORE', ready, unpack(lanes))
  for at = 9, 0, -1 do
    if found[at + 1] then return at end
  end
end

-- Removes the tenant from those of the task and the reach, if it has no lane there.
local function leave_order(place)
  if not top_priority(ready_key(place), place.reach, place.tenant) then
    redis.call('ZREM', order_key(place.task, place.reach), place.tenant)
  end
end

-- Removes the job from those that have shards to hand out.
local function leave(id)
  local place = place_of(id)
  if not place.task then return end
  local jobs = lane_key(place)
  redis.call('ZREM', jobs, id)
  redis.call('ZREM', P .. 'warm:' .. place.model, id)
  if redis.call('EXISTS', jobs) == 0 then
    redis.call('ZREM', ready_key(place), lane_name(place.reach, place.priority, place.tenant))
    leave_order(place)
  end
end

-- Releases the shard again.
local function again(id, shard)
  redis.call('RPUSH', job_key(id, 'again'), shard)
  make_ready(id)
end

-- Releases the shard again after `delay` seconds, which counts as a try; at once, and uncounted, if that is 0.
local function put_back(id, shard, delay)
  if tonumber(delay) > 0 then
    redis.call('HINCRBY', job_key(id, 'tries'), shard, 1)
    redis.call('ZADD', P .. 'delayed', now() + tonumber(delay), id .. '/' .. shard)
  else
    again(id, shard)
  end
end

-- Stops handing out the job's shards; those in hand are dropped at their next batch. Returns false if the job had ended or
-- was being stopped already.
local function halt(id, status, err)
  local before = status_of(id)
  if before ~= 'planning' and before ~= 'running' and before ~= 'paused' then return false end
  redis.call('HSET', job_key(id), 'status', status, 'error', err)
  leave(id)
  return true
end

-- Stops a job that has more error rows than its limit allows.
local function hold_to_max_errors(id)
  local limit = tonumber(redis.call('HGET', job_key(id), 'max_errors') or '')
  if limit and number_of(id, 'error_rows') > limit then
    halt(id, 'failing', cjson.encode({
      code = 'too_many_errors',
      message = number_of(id, 'error_rows') .. ' records have an error, more than max_errors allows (' .. limit .. ')'
    }))
  end
end
