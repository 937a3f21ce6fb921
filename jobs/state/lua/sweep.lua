-- ARGV: how often a shard may lose its worker, over no rows and over rows, and how many shards in a row. Releases what
-- nobody works on any more; answers {jobs to finish}, {jobs to plan}, leases that ran out.
local time, expired = now(), 0
local function parted(member)
  return member:match('^(.*)/(%d+)$')
end

for _, member in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', time, 'LIMIT', 0, 1000)) do
  local id, shard = parted(member)
  expired = expired + 1
  lose(id, shard, 'lease_expired', ARGV[1], ARGV[2], ARGV[3])
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
