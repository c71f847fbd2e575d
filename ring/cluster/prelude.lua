-- What the membership scripts share: ring/cluster/scripts.py puts it in front of each of them.
--
-- KEYS      members   hash: name -> [name, incarnation, edge, peer, api, weight, state, version] as JSON
--           leases    sorted set: name by the time in ms at which its lease lapses
--           epoch     hash: epoch, previous (the one before), members (the hash of all of them), swept (when lapsed leases were last looked for)
--           geometry  hash: what all nodes must agree on (slots, algorithm, schema, ttl_ms, secret: a mark of it)
--           table     hash: epoch, hash and data of the slot table
--           suspects  hash: name -> who believes it dead, since when, as JSON; until it renews
-- ARGV[1]   the time in ms, "" for the server's own: only tests give one

local MEMBERS, LEASES, EPOCH, GEOMETRY, TABLE, SUSPECTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

local function stored_epoch()
  return tonumber(redis.call('HGET', EPOCH, 'epoch') or 0)
end

-- As `members_hash` in ring/cluster/view.py computes it: 48 bits of each, summed, so that no order is needed.
local function members_hash()
  local sum = 0
  for _, record in ipairs(redis.call('HVALS', MEMBERS)) do
    local m = cjson.decode(record)
    local text = table.concat({m[1], m[2], m[3], m[4], m[5], whole(m[6]), m[7]}, '\n')
    sum = (sum + tonumber(string.sub(redis.sha1hex(text), 1, 12), 16)) % 281474976710656
  end
  return sum
end

-- Every change of the members ends here. By the clock too, so that an emptied server goes on above what it forgot.
-- The one before is kept too: a node that was not in it has missed a change.
local function raise_epoch(seen, previous)
  previous = previous or stored_epoch()
  local epoch = math.max(stored_epoch() + 1, seen + 1, math.floor(now / 1000))
  redis.call('HSET', EPOCH, 'epoch', whole(epoch), 'previous', whole(previous), 'members', whole(members_hash()))
end

local function answer(status)
  local at = redis.call('HMGET', EPOCH, 'epoch', 'previous')
  return {status, at[1], at[2], redis.call('HVALS', MEMBERS)}
end

local function lease(name, ttl)
  redis.call('ZADD', LEASES, whole(now + ttl), name)
end

-- A sign of life, or an end: whoever believed it dead has to look again.
local function clear(name)
  redis.call('HDEL', SUSPECTS, name)
end

local function enrol(name, record, ttl)
  clear(name)
  redis.call('HSET', MEMBERS, name, record)
  lease(name, ttl)
end

local function strike(name)
  clear(name)
  redis.call('HDEL', MEMBERS, name)
  redis.call('ZREM', LEASES, name)
end

-- 'mine', 'gone' (no member of this name) or 'taken' (one of another incarnation).
local function holder(name, incarnation)
  local record = redis.call('HGET', MEMBERS, name)
  if not record then
    return 'gone'
  end
  return cjson.decode(record)[2] == incarnation and 'mine' or 'taken'
end

local function lives(name, incarnation)
  return holder(name, incarnation) == 'mine' and tonumber(redis.call('ZSCORE', LEASES, name) or 0) > now
end

-- What stands against this incarnation, nil if nothing does. A lease that has moved refutes too: a node of the release
-- before this one renews and clears nothing. What is older than a ttl, or from before the clock went back, is void.
local function suspicion_of(name, incarnation, ttl)
  local stored = redis.call('HGET', SUSPECTS, name)
  local suspicion = stored and cjson.decode(stored)
  if suspicion and suspicion.incarnation == incarnation and suspicion.lapse == redis.call('ZSCORE', LEASES, name)
    and now >= suspicion.at and now - suspicion.at <= ttl then
    return suspicion
  end
end

-- Changes one field of a member's record; true if it had another value.
local function amend(name, field, value)
  local member = cjson.decode(redis.call('HGET', MEMBERS, name))
  if member[field] == value then
    return false
  end
  member[field] = value
  redis.call('HSET', MEMBERS, name, cjson.encode(member))
  return true
end

-- Removes the members whose lease has lapsed; true if there were any. Nodes renew three times a ttl: where nobody has
-- looked for half of one, the server was away or every node stood still. Leases did not run meanwhile, and where that
-- took a whole ttl, nodes may need as long to come back.
local function sweep(ttl)
  local swept = tonumber(redis.call('HGET', EPOCH, 'swept'))
  redis.call('HSET', EPOCH, 'swept', whole(now))
  local away = swept and math.max(0, now - swept) or ttl + 1
  -- A server that is short of memory may have dropped one key and kept the other.
  if redis.call('HLEN', MEMBERS) ~= redis.call('ZCARD', LEASES) then
    for _, name in ipairs(redis.call('HKEYS', MEMBERS)) do
      if not redis.call('ZSCORE', LEASES, name) then
        lease(name, ttl)
      end
    end
    for _, name in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
      if redis.call('HEXISTS', MEMBERS, name) == 0 then
        redis.call('ZREM', LEASES, name)
      end
    end
  end
  -- Leases from before the clock went back would outlive their nodes by as much.
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '(' .. whole(now + ttl), '+inf')) do
    lease(name, ttl)
  end
  if away > ttl / 2 then
    local leases = redis.call('ZRANGE', LEASES, 0, -1, 'WITHSCORES')
    for i = 1, #leases, 2 do
      lease(leases[i], away > ttl and ttl or math.min(ttl, leases[i + 1] + away - now))
    end
  end
  local lapsed = redis.call('ZRANGEBYSCORE', LEASES, '-inf', whole(now))
  for _, name in ipairs(lapsed) do
    strike(name)
  end
  return #lapsed > 0
end
