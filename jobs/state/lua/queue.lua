-- The ready queue: the jobs that have shards to hand out, in lanes of equal task, reach, priority and tenant. A job's reach
-- orders it among those of all tenants, its priority among its tenant's own.

-- Returns the key of the job's lane, the key of its task's set of lanes, and the lane's name in that set.
local function lane_of(id)
  local job = redis.call('HMGET', job_key(id), 'task', 'priority', 'tenant', 'reach')
  local ready, lane, reach = P .. 'ready:' .. job[1], job[2] .. '/' .. (job[3] or ''), job[4] or job[2]
  -- Earlier versions had no reach, and wrote the priority alone.
  if reach ~= job[2] then lane = reach .. ':' .. lane end
  return ready .. ':' .. lane, ready, lane, tonumber(reach)
end

-- Returns how many shards wait in the job's list: an upper bound, since some of them may be done or in hand.
local function waiting(id)
  return redis.call('LLEN', job_key(id, 'again')) + number_of(id, 'shards') - number_of(id, 'next')
end

-- Adds the job to those that have shards to hand out, if it has some and is running.
local function make_ready(id)
  if status_of(id) ~= 'running' or waiting(id) <= 0 then return end
  local jobs, ready, lane, reach = lane_of(id)
  local turns = tonumber(redis.call('HGET', job_key(id), 'turns') or '')
  if turns then
    local least = redis.call('ZRANGEBYSCORE', jobs, 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
    turns = math.max(turns, tonumber(least or '0'))
  else
    turns = number_of(id, 'accepted') - 1e12
    redis.call('HSETNX', job_key(id), 'last', now())
  end
  redis.call('ZADD', jobs, 'NX', turns, id)
  redis.call('ZADD', ready, 9 - reach, lane)
end

-- Removes the job from those that have shards to hand out.
local function leave(id)
  local jobs, ready, lane = lane_of(id)
  redis.call('ZREM', jobs, id)
  if redis.call('EXISTS', jobs) == 0 then redis.call('ZREM', ready, lane) end
end

-- Takes the next shard from the job's list; returns nil if every shard is done or in hand.
local function next_shard(id)
  local function free(shard)
    return not settled(id, shard) and redis.call('HEXISTS', job_key(id, 'held'), shard) == 0
  end
  local shard = redis.call('LPOP', job_key(id, 'again'))
  while shard do
    if free(shard) then return shard end
    shard = redis.call('LPOP', job_key(id, 'again'))
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

-- Releases the shard again.
local function again(id, shard)
  redis.call('RPUSH', job_key(id, 'again'), shard)
  make_ready(id)
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
