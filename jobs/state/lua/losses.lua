-- Who is to blame? What becomes of a shard, and of its job, when an attempt failed or its worker was lost. One machine alone
-- can be at fault itself: with others that could try, no shard is given up and no job failed for what only one saw. `able`
-- is how many hosts could. It uses queue.lua.

-- Seconds that the keys of evidence outlive their last change: an earlier version ends jobs without removing them.
local EVIDENCE_S = 7 * 86400
-- A shard is given up after so many times the losses that its limit allows, whoever saw them; it is given up, or
-- fails its job, after so many faults on enough hosts, however different they are: each must end.
local ENOUGH, OF_ANY_KIND = 3, 24

-- Returns how many hosts must have seen a fault.
local function needed(able)
  return math.min(2, math.max(1, tonumber(able)))
end

local function count_of(hosts)
  local count = 0
  for _ in pairs(hosts) do count = count + 1 end
  return count
end

-- Notes that the host failed at the shard, in this way. Returns how often that happened, on how many hosts, and how often
-- and on how many hosts the shard failed in any way.
local function blame(id, shard, host, kind)
  local key = job_key(id, 'blamed')
  local seen = cjson.decode(redis.call('HGET', key, shard) or '{}')
  seen[host] = seen[host] or {}
  seen[host][kind] = (seen[host][kind] or 0) + 1
  redis.call('HSET', key, shard, cjson.encode(seen))
  redis.call('EXPIRE', key, EVIDENCE_S)
  local total, hosts, of_any = 0, 0, 0
  for _, kinds in pairs(seen) do
    if kinds[kind] then total, hosts = total + kinds[kind], hosts + 1 end
    for _, times in pairs(kinds) do of_any = of_any + times end
  end
  return total, hosts, of_any, count_of(seen)
end

-- Notes a fault that may be the job's: its model ends workers, its shards are given up, its input is refused. Fails the job
-- if there were `most` of this kind since a shard was last committed, on enough hosts that saw it `least` times each; or very
-- many, on enough hosts. Returns whether it did.
local function hold_against(id, host, kind, most, able, least, err)
  local key, done = job_key(id, 'against'), number_of(id, 'done')
  local mine = cjson.decode(redis.call('HGET', key, host .. ' ' .. kind) or '{}')
  local times = mine.done == done and mine.times or 0
  redis.call('HSET', key, host .. ' ' .. kind, cjson.encode({done = done, times = times + 1}))
  redis.call('EXPIRE', key, EVIDENCE_S)
  local total, hosts, sure, found = 0, 0, 0, redis.call('HGETALL', key)
  for i = 1, #found, 2 do
    local seen = cjson.decode(found[i + 1])
    if seen.done == done and found[i]:sub(-#kind - 1) == ' ' .. kind then
      total, hosts = total + seen.times, hosts + 1
      if seen.times >= least then sure = sure + 1 end
    end
  end
  if total < tonumber(most) or hosts < needed(able) or sure < needed(able) and total < OF_ANY_KIND then return false end
  return halt(id, 'failing', err(total, hosts))
end

-- Returns whether another host has committed a shard of the job in the last minute: then a fault may be this host's own.
local function others_succeed(id, host)
  local found = redis.call('HGETALL', job_key(id, 'committed'))
  for i = 1, #found, 2 do
    if found[i] ~= host and now() - tonumber(found[i + 1]) < 60 then return true end
  end
  return false
end

-- Notes that the shard is given up, unless it is committed.
local function fail_shard(id, shard, err)
  if redis.call('GETBIT', job_key(id, 'done'), shard) == 1 then return end
  redis.call('HSET', job_key(id, 'failed'), shard, err)
end

local function seen_by(hosts)
  return hosts > 1 and (' on ' .. hosts .. ' machines') or ''
end

-- A worker was lost while it loaded the model, and no other has got further than loading. `at_once` has the machines and
-- jobs that this was noted of in the same sweep: a machine that dies loses all its workers for one cause.
local function lose_loading(id, host, why, most, able, at_once)
  if at_once[id .. ' ' .. host] then return end
  at_once[id .. ' ' .. host] = true
  if redis.call('HLEN', job_key(id, 'held')) > redis.call('HLEN', job_key(id, 'at')) then return end
  for _, what in ipairs(redis.call('HVALS', job_key(id, 'at'))) do
    if what ~= 'load' then return end
  end
  -- A process can be killed for any cause, while it loads too: once on a machine is no witness.
  hold_against(id, host, 'load', most, able, 2, function(times, hosts)
    return cjson.encode({
      code = 'model',
      message = 'the worker process was lost ' .. times .. ' times in a row' .. seen_by(hosts)
        .. ' while it loaded the model (' .. why .. '): it may need more memory than the workers have'
    })
  end)
end

-- Gives the shard up. If `most` were given up in a row, the job or its workers are at fault, and the job fails.
local function give_up(id, shard, host, why, deaths, most, able)
  local code = why == 'lease_expired' and 'worker_lost' or why
  fail_shard(id, shard, cjson.encode({
    code = code, message = 'the worker was lost ' .. deaths .. ' times while it ran this shard'
  }))
  hold_against(id, host, code, most, able, 1, function(times, hosts)
    return cjson.encode({
      code = code,
      message = times .. ' shards in a row lost their worker too often' .. seen_by(hosts)
        .. ', and none was done in between; the last: ' .. deaths .. ' times (' .. why .. ')'
    })
  end)
end

-- Drops the lease of a worker that is gone, and releases the shard again. Gives it up if too many workers were lost over it:
-- `unnamed` that had named no rows, or more than `named` that had. A model that can't be loaded is no fault of the shard.
local function lose(id, shard, why, unnamed, named, most_shards, able, at_once)
  local at = redis.call('HGET', job_key(id, 'at'), shard) or ''
  local host = redis.call('HGET', job_key(id, 'where'), shard) or 'unknown'
  local start, stop = at:match('^(%d+)-(%d+)$')
  drop_lease(id, shard)
  if not unfinished(id) then return end
  redis.call('HINCRBY', job_key(id), 'workers_lost', 1)
  redis.call('HSET', job_key(id), 'last_loss', why)
  if at == 'load' then
    blame(id, shard, host, 'load')
    lose_loading(id, host, why, unnamed, able, at_once)
    return again(id, shard)
  end
  local deaths = cjson.decode(redis.call('HGET', job_key(id, 'lost'), shard) or '[]')
  deaths[#deaths + 1] = {why, tonumber(start), tonumber(stop)}
  local with_rows = 0
  for _, death in ipairs(deaths) do
    if death[2] and death[2] < death[3] then with_rows = with_rows + 1 end  -- none if storage hung
  end
  redis.call('HSET', job_key(id, 'lost'), shard, cjson.encode(deaths))
  local _, hosts = blame(id, shard, host, 'lost')
  local without, limit = #deaths - with_rows, tonumber(unnamed)
  local too_many = without >= limit or with_rows > tonumber(named)
  if too_many and (hosts >= needed(able) or without >= ENOUGH * limit or with_rows > ENOUGH * tonumber(named)) then
    give_up(id, shard, host, why, #deaths, most_shards, able)
  else
    again(id, shard)
  end
end
