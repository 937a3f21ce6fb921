-- Releases the shards whose lease has run out or whose delay is over. Returns {jobs to finish}, {jobs to plan}, and how many
-- leases ran out.
-- needs: queue, losses
local max_unnamed, max_named, max_shards = unpack(ARGV)
local time, expired = now(), 0
local function parted(member)
  return member:match('^(.*)/(%d+)$')
end

for _, member in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', time, 'LIMIT', 0, 1000)) do
  local id, shard = parted(member)
  expired = expired + 1
  lose(id, shard, 'lease_expired', max_unnamed, max_named, max_shards)
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', P .. 'delayed', '-inf', time, 'LIMIT', 0, 1000)) do
  local id, shard = parted(member)
  redis.call('ZREM', P .. 'delayed', member)
  if unfinished(id) then again(id, shard) end
end

local finish, plan, tenants = {}, {}, {}
for _, id in ipairs(redis.call('ZRANGE', P .. 'active', 0, -1)) do
  if status_of(id) == 'planning' then plan[#plan + 1] = id end
  if finishable(id) then finish[#finish + 1] = id end
  tenants[redis.call('HGET', job_key(id), 'tenant') or ''] = true
end
for _, tenant in ipairs(redis.call('HKEYS', P .. 'served')) do
  if not tenants[tenant] then redis.call('HDEL', P .. 'served', tenant) end
end
return {finish, plan, expired}
