-- Gives a server that was emptied or rolled back the members that a node still knows, each with a full lease: the ring
-- does not move, and who has died meanwhile goes with its lease.
-- ARGV: now, ttl in ms, highest epoch seen, the view's epoch, slots, algorithm, schema, the mark of the
-- secret, then name and record of each.
-- Answers restored | ahead (nothing was forgotten, or somebody else has restored it).

local ttl, seen, epoch = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

if stored_epoch() >= epoch then
  return {'ahead'}
end
redis.call('DEL', MEMBERS, LEASES, SUSPECTS)
for i = 9, #ARGV, 2 do
  enrol(ARGV[i], ARGV[i + 1], ttl)
end
redis.call('HSET', GEOMETRY, 'slots', ARGV[5], 'algorithm', ARGV[6], 'schema', ARGV[7], 'ttl_ms', whole(ttl),
  'secret', ARGV[8])
raise_epoch(seen, epoch)
return answer('restored')
