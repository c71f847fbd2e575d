-- Renews a node's lease, removes the members whose lease has lapsed, and compares the node's view with what is here.
-- ARGV: now, ttl in ms, highest epoch seen, the view's epoch, the view's members hash, name, incarnation.
-- Answers renewed, with the members if the view is not of this epoch | gone | taken (by another incarnation) | behind
-- (the view is of a later epoch: this server has forgotten something).

local ttl, seen, epoch, hash = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local name, incarnation = ARGV[6], ARGV[7]

if stored_epoch() < epoch then
  return {'behind'}
end
local mine = holder(name, incarnation)
if mine ~= 'mine' then
  return {mine}
end

-- Before the sweep: a node that comes late but comes is no dead node.
lease(name, ttl)
clear(name)
local changed = sweep(ttl)
local disputed = stored_epoch() == epoch and redis.call('HGET', EPOCH, 'members') ~= hash
if changed or disputed or stored_epoch() < seen then
  -- Of a disputed epoch nobody knows who was in which ring: all are to take it that they have missed a change.
  raise_epoch(seen, disputed and 0 or nil)
end
if stored_epoch() == epoch then
  return {'renewed'}
end
return answer('renewed')
