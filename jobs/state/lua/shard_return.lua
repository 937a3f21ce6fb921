-- Gives back the shard that this attempt was handed out, if it was: its worker never got the answer. Nothing is counted.
-- needs: queue
local attempt = unpack(ARGV)
local took = redis.call('HMGET', P .. 'took:' .. attempt, 'job', 'shard')
if took[1] and let_go(took[1], took[2], attempt) then again(took[1], took[2]) end
