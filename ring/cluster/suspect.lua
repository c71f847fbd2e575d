-- ring/cluster/suspect.lua
-- Notes that one member believes another dead. Said again it changes nothing.
-- ARGV: now, ttl in ms, grace in ms, name and incarnation of the reporter, name and incarnation of the suspect.
-- Answers suspected, with the ms in which a renewal still refutes it | gone, with the members (it is none any more) |
-- stale (who says so is no live member itself).

local ttl, grace = tonumber(ARGV[2]), tonumber(ARGV[3])
local reporter, its, suspect, theirs = ARGV[4], ARGV[5], ARGV[6], ARGV[7]

if not lives(reporter, its) then
  return {'stale'}
end
if holder(suspect, theirs) ~= 'mine' then
  return answer('gone')
end
local suspicion = suspicion_of(suspect, theirs, ttl)
  or {incarnation = theirs, at = now, lapse = redis.call('ZSCORE', LEASES, suspect), reports = {}}
suspicion.reports[reporter] = its
redis.call('HSET', SUSPECTS, suspect, cjson.encode(suspicion))
return {'suspected', math.max(0, suspicion.at + grace - now)}
