-- Put in front of every script. A script runs whole or not at all, and by Redis's own clock, so that no worker's clock
-- matters. It makes its keys from the prefix "nightshift:", all but Celery's queue, which it is given in KEYS. The keys:
--   job:{id}           hash: status, task, output, shards, rows, next (the first shard never handed out), counts, error,
--                      priority, tenant, model; turns (shards handed out, see shard_take.lua), last (when the last one was),
--                      entered (when it was entered into this Redis), settles (from when on no attempt of before can
--                      commit), workers_lost, last_loss (how many, why the last);
--                      asked (when control was last asked to plan or to finish it)
--   job:{id}:done      bitmap of committed shards          job:{id}:failed   hash shard -> error (JSON)
--   job:{id}:again     list of shards to release again     job:{id}:held     hash shard -> attempt that holds its lease
--   job:{id}:live      hash shard -> rows done so far      job:{id}:errors   hash error code -> error rows
--   job:{id}:lost      hash shard -> workers lost over it: JSON list of {why, and the rows it named: start, stop}
--   job:{id}:at        hash shard -> what its attempt says it works on: rows, "start-stop", or "load", its model
--   job:{id}:tries     hash shard -> transient faults
--   job:{id}:where     hash shard -> host of the attempt that holds its lease
--   job:{id}:blamed    hash shard -> hosts that failed at it or were lost over it: JSON {host: {kind of fault: times}}
--   job:{id}:against   hash "host kind" -> faults there that may be the job's: JSON {done, times}, its shards done then
--   job:{id}:committed hash host -> when it last committed one of the job's shards
--   ready:{task}       lanes, "{reach}:{priority}/{tenant}" or, if the two are equal, "{priority}/{tenant}", that have
--                      shards to hand out, the highest reach first
--   ready:{task}:{lane}    the lane's jobs by their turns; negative for those that had none yet
--   order:{task}:{reach}   tenants with a lane there, by their turns: an index of ready:{task} (queue.lua)
--   warm:{model}       jobs of the model that have shards to hand out, by when they were added
--   promised:{task}    messages that are being sent
--   served             hash tenant -> its turns            took:{attempt}    what an attempt was handed out
--   leases, delayed    shards of all jobs by the time a lease runs out, or a retry is due
--   notices            ended jobs by the time their webhook is due; notice:{job}: hash of its output and tries
--   active             jobs that have not ended, by the time they were accepted
--   worker:{name}      what a supervisor reported (JSON)   workers           names of those that ever reported
--   health:{name}      how its machine is (JSON)           suspended         hash process -> why it takes no shards (JSON)
--   swept              when the last sweep was         reported_since     when the first supervisor reported
--   lock:{name}        the lock's owner                    rates             hash "task model" -> records a second
--   epoch, rebuilding  the server process that all jobs were entered into; the token of a rebuilding

local P = 'nightshift:'
-- The parts of a job that are kept after its end, its own hash first, and those that are not.
local KEPT = {false, 'done', 'failed', 'errors'}
local WHILE_UNDER_WAY = {'again', 'held', 'live', 'lost', 'at', 'tries', 'where', 'blamed', 'against', 'committed'}

local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1e6
end

local function job_key(id, part)
  return P .. 'job:' .. id .. (part and (':' .. part) or '')
end

local function status_of(id)
  return redis.call('HGET', job_key(id), 'status')
end

-- Returns whether the job is known and has not ended.
local function unfinished(id)
  local status = status_of(id)
  return status == 'planning' or status == 'running' or status == 'paused' or status == 'cancelling'
    or status == 'failing'
end

local function number_of(id, field)
  return tonumber(redis.call('HGET', job_key(id), field) or '0')
end

-- Returns whether the shard is committed or given up.
local function settled(id, shard)
  return redis.call('GETBIT', job_key(id, 'done'), shard) == 1
    or redis.call('HEXISTS', job_key(id, 'failed'), shard) == 1
end

-- Drops the lease, whoever holds it.
local function drop_lease(id, shard)
  for _, part in ipairs({'held', 'live', 'at', 'where'}) do redis.call('HDEL', job_key(id, part), shard) end
  redis.call('ZREM', P .. 'leases', id .. '/' .. shard)
end

-- Drops the lease if this attempt holds it; returns whether it did.
local function let_go(id, shard, attempt)
  if redis.call('HGET', job_key(id, 'held'), shard) ~= attempt then return false end
  drop_lease(id, shard)
  redis.call('DEL', P .. 'took:' .. attempt)
  return true
end

-- Returns whether all that is left of the job is its manifest. A job that was entered again may be worked on by attempts that
-- this Redis doesn't know: until it settles, it ends only with all of its parts.
local function finishable(id)
  local status, done, shards = status_of(id), number_of(id, 'done'), number_of(id, 'shards')
  if now() < number_of(id, 'settles') and (shards == 0 or done < shards) then return false end
  if status == 'running' or status == 'paused' then
    return done + redis.call('HLEN', job_key(id, 'failed')) >= shards
  end
  return (status == 'cancelling' or status == 'failing') and redis.call('HLEN', job_key(id, 'held')) == 0
end

-- Gives the lease of the shard to this attempt.
local function hold(id, shard, attempt, host, lease)
  redis.call('HSET', job_key(id, 'held'), shard, attempt)
  redis.call('HSET', job_key(id, 'where'), shard, host)
  redis.call('ZADD', P .. 'leases', now() + tonumber(lease), id .. '/' .. shard)
  redis.call('HSETNX', job_key(id), 'started', now())
end

