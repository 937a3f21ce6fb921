-- ARGV: task, window. Releases shards until `window` of them wait unclaimed; answers {job, shard, shards, output}…
local queued, ready = P .. 'queued:' .. ARGV[1], P .. 'ready:' .. ARGV[1]
local room = tonumber(ARGV[2]) - redis.call('ZCARD', queued)
local released = {}

local function take(id)
  local shard = redis.call('LPOP', job_key(id, 'again'))
  while shard do
    if not settled(id, shard) then return shard end
    shard = redis.call('LPOP', job_key(id, 'again'))
  end
  local next, shards = number_of(id, 'next'), number_of(id, 'shards')
  while next < shards and settled(id, next) do next = next + 1 end
  redis.call('HSET', job_key(id), 'next', math.min(next + 1, shards))
  if next < shards then return tostring(next) end
end

while room > 0 do
  local id = redis.call('ZRANGE', ready, 0, 0)[1]
  if not id then break end
  local shard = status_of(id) == 'running' and take(id)
  if shard then
    redis.call('ZADD', queued, now(), id .. '/' .. shard)
    local job = redis.call('HMGET', job_key(id), 'shards', 'output')
    released[#released + 1] = {id, shard, job[1], job[2]}
    room = room - 1
  else
    redis.call('ZREM', ready, id)
  end
end
return released
