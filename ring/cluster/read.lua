-- All that the server knows of the ring, at one moment; changes nothing. ARGV: now.
-- Answers read, now, epoch, ttl in ms, records, leases (name, lapse in ms, ...), epoch of the table, the table.

local at = redis.call('HMGET', TABLE, 'epoch', 'data')
return {
  'read', whole(now), whole(stored_epoch()), redis.call('HGET', GEOMETRY, 'ttl_ms'), redis.call('HVALS', MEMBERS),
  redis.call('ZRANGE', LEASES, 0, -1, 'WITHSCORES'), at[1], at[2],
}
