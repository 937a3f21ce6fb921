-- The attempt failed for what may be the shard's fault: this error (JSON), of a kind. Gives the shard up if that happened
-- `most` times, on enough hosts; else releases it again after `delay` seconds. Returns whether the attempt had its lease
-- still, whether the shard is given up, whether to finish the job, and whether the host is suspect.
-- needs: queue, losses
local job, shard, attempt, host, error, kind, most, delay, able = unpack(ARGV)
if not let_go(job, shard, attempt) then return {0, 0, 0, 0} end
local times, hosts, of_any, saw_any = blame(job, shard, host, kind)
local given_up = times >= tonumber(most) and hosts >= needed(able) or of_any >= OF_ANY_KIND and saw_any >= needed(able)
if given_up then fail_shard(job, shard, error) else put_back(job, shard, delay) end
local suspect = saw_any < 2 and others_succeed(job, host)
return {1, given_up and 1 or 0, finishable(job) and 1 or 0, suspect and 1 or 0}
