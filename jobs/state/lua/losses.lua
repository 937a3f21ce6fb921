-- The loss policy: what becomes of a shard, and of its job, when a worker is lost over it. It uses queue.lua.

-- Notes that the shard is given up, unless it is committed.
local function fail_shard(id, shard, err)
  if redis.call('GETBIT', job_key(id, 'done'), shard) == 1 then return end
  redis.call('HSET', job_key(id, 'failed'), shard, err)
end

-- Fails a job whose model ends the workers that load it: if as many are lost in a row as a shard may lose, while no other
-- worker has got further than loading.
local function lose_loading(id, why, most)
  if redis.call('HLEN', job_key(id, 'held')) > redis.call('HLEN', job_key(id, 'at')) then return end
  for _, what in ipairs(redis.call('HVALS', job_key(id, 'at'))) do
    if what ~= 'load' then return end
  end
  local deaths = redis.call('HINCRBY', job_key(id), 'load_deaths', 1)
  if deaths >= tonumber(most) then
    halt(id, 'failing', cjson.encode({
      code = 'model',
      message = 'the worker process was lost ' .. deaths .. ' times in a row while it loaded the model (' .. why
        .. '): it may need more memory than the workers have'
    }))
  end
end

-- Gives the shard up. If `most` were given up in a row, the job or its workers are at fault, and the job fails.
local function give_up(id, shard, why, deaths, most)
  local code = why == 'lease_expired' and 'worker_lost' or why
  fail_shard(id, shard, cjson.encode({
    code = code, message = 'the worker was lost ' .. deaths .. ' times while it ran this shard'
  }))
  local shards = redis.call('HINCRBY', job_key(id), 'given_up', 1)
  if shards >= tonumber(most) then
    halt(id, 'failing', cjson.encode({
      code = code,
      message = shards .. ' shards in a row lost their worker too often, and none was done in between; the last: '
        .. deaths .. ' times (' .. why .. ')'
    }))
  end
end

-- Drops the lease of a worker that is gone, and releases the shard again. Gives it up if too many workers were lost over it:
-- `unnamed` that had named no rows, or more than `named` that had. A model that can't be loaded is no fault of the shard.
local function lose(id, shard, why, unnamed, named, most_shards)
  local at = redis.call('HGET', job_key(id, 'at'), shard) or ''
  local start, stop = at:match('^(%d+)-(%d+)$')
  for _, part in ipairs({'held', 'live', 'at'}) do redis.call('HDEL', job_key(id, part), shard) end
  redis.call('ZREM', P .. 'leases', id .. '/' .. shard)
  if not unfinished(id) then return end
  redis.call('HINCRBY', job_key(id), 'workers_lost', 1)
  redis.call('HSET', job_key(id), 'last_loss', why)
  if at == 'load' then
    lose_loading(id, why, unnamed)
    return again(id, shard)
  end
  local deaths = cjson.decode(redis.call('HGET', job_key(id, 'lost'), shard) or '[]')
  deaths[#deaths + 1] = {why, tonumber(start), tonumber(stop)}
  local with_rows = 0
  for _, death in ipairs(deaths) do with_rows = with_rows + (death[2] and 1 or 0) end
  redis.call('HSET', job_key(id, 'lost'), shard, cjson.encode(deaths))
  if #deaths - with_rows >= tonumber(unnamed) or with_rows > tonumber(named) then
    give_up(id, shard, why, #deaths, most_shards)
  else
    again(id, shard)
  end
end
