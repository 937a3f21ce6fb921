-- ARGV: job, status (cancelling or failing), error (JSON, or empty). Answers whether to finish, or -1 where the job had
-- ended or was being stopped already.
if not halt(ARGV[1], ARGV[2], ARGV[3]) then return -1 end
return finishable(ARGV[1]) and 1 or 0
