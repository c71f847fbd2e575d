-- Removes a member at its own wish. ARGV: now, highest epoch seen, name, incarnation. Answers left | gone | taken.

local mine = holder(ARGV[3], ARGV[4])
if mine ~= 'mine' then
  return {mine}
end
strike(ARGV[3])
raise_epoch(tonumber(ARGV[2]))
return {'left'}
