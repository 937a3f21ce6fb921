-- The attempt failed for what may be the job's fault: this error (JSON), whose code is `code`. Fails the job if there were
-- `most` such faults since a shard was last committed, on enough hosts; else releases the shard again after `delay` seconds.
-- Returns whether the attempt had its lease still, whether the job fails, whether to finish it, and whether the host is
-- suspect.
-- needs: queue, losses
local job, shard, attempt, host, error, code, most, delay, able = unpack(ARGV)
if not let_go(job, shard, attempt) then return {0, 0, 0, 0} end
local _, _, of_any, saw_any = blame(job, shard, host, code)
local failed = hold_against(job, host, code, most, able, 1, function() return error end)
if not failed and of_any >= OF_ANY_KIND and saw_any >= needed(able) then failed = halt(job, 'failing', error) end
if not failed then put_back(job, shard, delay) end
local suspect = saw_any < 2 and others_succeed(job, host)
return {1, failed and 1 or 0, finishable(job) and 1 or 0, suspect and 1 or 0}
