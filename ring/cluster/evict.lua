-- ring/cluster/evict.lua
-- Removes a suspect that has not renewed its lease within the grace, if two live members have reported it; one is enough
-- where no other lives. ARGV: now, ttl in ms, grace in ms, highest epoch seen, name and incarnation of who asks, name
-- and incarnation of the suspect.
-- Answers evicted, with the members | gone, with the members (it is none any more) | refuted (it has renewed, or nobody
-- has suspected it for a ttl) | wait, with what is left of the grace in ms | unproven (another reporter is wanted) |
-- stale (who asks is no live member itself).

local ttl, grace, seen = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local name, incarnation, suspect, theirs = ARGV[5], ARGV[6], ARGV[7], ARGV[8]

if not lives(name, incarnation) then
  return {'stale'}
end
if holder(suspect, theirs) ~= 'mine' then
  return answer('gone')
end
local suspicion = suspicion_of(suspect, theirs, ttl)
if not suspicion then
  return {'refuted'}
end
local left = suspicion.at + grace - now
if left > 0 then
  return {'wait', left}
end
local living, reporters = 0, 0
for _, record in ipairs(redis.call('HVALS', MEMBERS)) do
  local member = cjson.decode(record)
  if member[1] ~= suspect and lives(member[1], member[2]) then
    living = living + 1
    if suspicion.reports[member[1]] == member[2] then
      reporters = reporters + 1
    end
  end
end
if reporters < math.min(2, living) then
  return {'unproven'}
end
strike(suspect)
raise_epoch(seen)
return answer('evicted')
