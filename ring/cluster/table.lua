-- Writes the slot table of the current epoch, or compares it with what another node computed.
-- ARGV: now, epoch, hash, data. Answers written | same | differs | stale (another epoch is current).

local epoch, hash, data = ARGV[2], ARGV[3], ARGV[4]

if redis.call('HGET', EPOCH, 'epoch') ~= epoch then
  return {'stale'}
end
local at = redis.call('HMGET', TABLE, 'epoch', 'hash')
if at[1] == epoch then
  return {at[2] == hash and 'same' or 'differs'}
end
redis.call('HSET', TABLE, 'epoch', epoch, 'hash', hash, 'data', data)
return {'written'}
