-- Makes a node a member. ARGV: now, ttl in ms, highest epoch seen, slots, algorithm, schema, oldest schema that the
-- node can work beside, name, incarnation, record, the mark of the secret.
-- Answers joined, with the members | wait (a live node has the name), with what is left of its lease in ms | refused,
-- with what differs and the value in force.

local ttl, seen = tonumber(ARGV[2]), tonumber(ARGV[3])
local slots, algorithm, schema, oldest = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local name, incarnation, record, secret = ARGV[8], ARGV[9], ARGV[10], ARGV[11]

-- What is stored stays in this schema and these slots when the last node goes.
local at = redis.call('HMGET', GEOMETRY, 'schema', 'slots', 'algorithm', 'ttl_ms', 'secret')
if at[1] and (tonumber(at[1]) < tonumber(oldest) or tonumber(at[1]) > tonumber(schema)) then
  return {'refused', 'schema', at[1]}
end
if at[2] and at[2] ~= slots then
  return {'refused', 'slots', at[2]}
end

local changed = sweep(tonumber(at[4]) or ttl)
local mine = holder(name, incarnation)
local others = redis.call('HLEN', MEMBERS) - (mine == 'gone' and 0 or 1)
local refusal
if others > 0 and at[3] and at[3] ~= algorithm then
  refusal = {'refused', 'algorithm', at[3]}
elseif others > 0 and at[4] and at[4] ~= whole(ttl) then
  refusal = {'refused', 'ttl_ms', at[4]}
elseif others > 0 and at[5] and at[5] ~= secret then
  refusal = {'refused', 'secret', ''}
elseif mine == 'taken' then
  refusal = {'wait', redis.call('ZSCORE', LEASES, name) - now}
end
if refusal then
  if changed then
    raise_epoch(seen)
  end
  return refusal
end

if mine == 'gone' or redis.call('HGET', MEMBERS, name) ~= record then
  changed = true
end
enrol(name, record, ttl)
redis.call('HSET', GEOMETRY, 'schema', at[1] or schema, 'slots', slots, 'algorithm', algorithm, 'ttl_ms', whole(ttl),
  'secret', secret)
if changed or stored_epoch() < seen then
  raise_epoch(seen)
end
return answer('joined')
