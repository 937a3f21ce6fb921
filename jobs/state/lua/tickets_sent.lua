-- So many messages, which tickets_missing.lua had asked for, are in the task's queue, or will not be.
local task, sent = unpack(ARGV)
local promised = P .. 'promised:' .. task
if redis.call('EXISTS', promised) == 1 and redis.call('DECRBY', promised, sent) <= 0 then redis.call('DEL', promised) end
