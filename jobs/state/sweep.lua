-- ARGV: how often a shard may lose its worker, error (JSON) for one that did so too often. Releases what nobody works on
-- any more; answers {jobs to finish}, {jobs to plan}, leases that ran out.
local time, expired = now(), 0
local function parted(member)
  return member:match('^(.*)/(%d+)$')
end

for _, member in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', time, 'LIMIT', 0, 1000)) do
  local id, shard = parted(member)
  expired = expired + 1
  redis.call('ZREM', P .. 'leases', member)
  redis.call('HDEL', job_key(id, 'held'), shard)
  redis.call('HDEL', job_key(id, 'live'), shard)
  if unfinished(id) then
    if redis.call('HINCRBY', job_key(id, 'lost'), shard, 1) >= tonumber(ARGV[1]) then
      fail_shard(id, shard, ARGV[2])
    else
      again(id, shard)
    end
  end
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', P .. 'delayed', '-inf', time, 'LIMIT', 0, 1000)) do
  local id, shard = parted(member)
  redis.call('ZREM', P .. 'delayed', member)
  if unfinished(id) then again(id, shard) end
end

local finish, plan = {}, {}
for _, id in ipairs(redis.call('ZRANGE', P .. 'active', 0, -1)) do
  if status_of(id) == 'planning' then plan[#plan + 1] = id end
  if finishable(id) then finish[#finish + 1] = id end
end
return {finish, plan, expired}
