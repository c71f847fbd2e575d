-- Sets a node's own state. ARGV: now, highest epoch seen, name, incarnation, state.
-- Answers changed, with the members | gone | taken.

local mine = holder(ARGV[3], ARGV[4])
if mine ~= 'mine' then
  return {mine}
end
if amend(ARGV[3], 7, ARGV[5]) then
  raise_epoch(tonumber(ARGV[2]))
end
return answer('changed')
