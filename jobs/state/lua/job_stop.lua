-- Stops the job: `status` is cancelling or failing, `error` is JSON or ''. Returns whether to finish the job, or -1 if it had
-- ended or was being stopped otherwise. A request that comes twice is answered twice.
-- needs: queue
local job, status, error = unpack(ARGV)
if status_of(job) ~= status and not halt(job, status, error) then return -1 end
return finishable(job) and 1 or 0
