-- Releases the shards whose lease has run out or whose delay is over. Returns {jobs to finish}, {jobs to plan}, each with its
-- output after it, and how many leases ran out. A job is named again after `ask_s` seconds, and none while `queue`, the queue
-- of control, holds more messages than there is to do.
-- `able` says how many hosts could run a shard, by task (JSON). A sweep that comes after a gap of more than `gap_s` seconds, in which nobody could renew, lets leases last once more.
-- needs: queue, losses
local queue = unpack(KEYS)
local max_unnamed, max_named, max_shards, able, lease, gap_s, ask_s = unpack(ARGV)
local time, expired, able_by_task, at_once = now(), 0, cjson.decode(able), {}
local function parted(member)
  return member:match('^(.*)/(%d+)$')
end

local swept = tonumber(redis.call('GET', P .. 'swept') or '')
redis.call('SET', P .. 'swept', time)
for _, member in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', time, 'LIMIT', 0, 1000)) do
  if swept and time - swept > tonumber(gap_s) then
    redis.call('ZADD', P .. 'leases', time + tonumber(lease), member)
  else
    local id, shard = parted(member)
    expired = expired + 1
    local hosts = able_by_task[redis.call('HGET', job_key(id), 'task') or ''] or 1
    lose(id, shard, 'lease_expired', max_unnamed, max_named, max_shards, hosts, at_once)
  end
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', P .. 'delayed', '-inf', time, 'LIMIT', 0, 1000)) do
  local id, shard = parted(member)
  redis.call('ZREM', P .. 'delayed', member)
  if unfinished(id) then again(id, shard) end
end

local wanted, tenants = {}, {}
for _, id in ipairs(redis.call('ZRANGE', P .. 'active', 0, -1)) do
  local job = redis.call('HMGET', job_key(id), 'status', 'tenant', 'asked', 'output')
  local what = job[1] == 'planning' and 'plan' or finishable(id) and 'finish'
  if what then wanted[#wanted + 1] = {what = what, id = id, asked = tonumber(job[3] or '0'), output = job[4]} end
  if job[1] == 'running' then make_ready(id) end
  tenants[job[2] or ''] = true
end
for _, tenant in ipairs(redis.call('HKEYS', P .. 'served')) do
  if not tenants[tenant] then redis.call('HDEL', P .. 'served', tenant) end
end

local answer, room = {finish = {}, plan = {}}, 2 * #wanted - redis.call('LLEN', queue)
for _, job in ipairs(wanted) do
  if room <= 0 then break end
  if time - job.asked >= tonumber(ask_s) then
    room = room - 1
    redis.call('HSET', job_key(job.id), 'asked', time)
    table.insert(answer[job.what], job.id)
    table.insert(answer[job.what], job.output)
  end
end
return {answer.finish, answer.plan, expired}
