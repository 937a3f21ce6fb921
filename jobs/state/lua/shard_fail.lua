-- ARGV: job, shard, attempt, error (JSON). The shard is given up, the job goes on. Answers whether to finish.
local id, shard = ARGV[1], ARGV[2]
if not let_go(id, shard, ARGV[3]) then return 0 end
fail_shard(id, shard, ARGV[4])
return finishable(id) and 1 or 0
