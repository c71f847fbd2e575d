-- What the steps of stored mailboxes share. ring/mailbox/vault.py makes one script of it and of them (push.lua,
-- read.lua, remove.lua): a server that was made to forget its scripts knows none of the steps, and never does a later
-- one without an earlier one.
--
-- KEYS      fence  string: the highest epoch whose owner has used the mailboxes of this slot
--           box    list: a user's letters, ascending by (epoch, number)
--           mark   string: the last letter that an owner has read, as MARK packs it
-- ARGV[1]   the time in ms, "" for the server's own: only tests give one
-- ARGV[2]   the step
--
-- A letter is its header, its origin and its body. The header: epoch, number, when it expires (ms), soonest, total,
-- bytes of the origin, flags (1: seen, 2: it has a ttl of its own), run (of the server that took it, as the caller names
-- it). `soonest` and `total` are about the whole box and hold in its last letter alone: none expires before `soonest`,
-- and the bodies are `total` bytes long.

local FENCE, BOX, MARK_KEY = KEYS[1], KEYS[2], KEYS[3]
local HEADER, HEADER_BYTES, MARK = '>I8I8I8I8I4I2BI4', 43, '>I8I8'
local BEFORE_SUMS, SUMS, AFTER_SUMS = 24, '>I8I4', 37  -- where soonest and total lie
local CHUNK = 64  -- letters read from the list at once

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Numbers, never strings: how strings compare depends on the server's locale.
local function above(epoch, number, other_epoch, other_number)
  return epoch > other_epoch or epoch == other_epoch and number > other_number
end

-- Its epoch, its number, when it expires, and how long its body is.
local function read_header(text)
  local epoch, number, expires, _, _, origin = struct.unpack(HEADER, text)
  return epoch, number, expires, #text - HEADER_BYTES - origin
end

local size, total, soonest, last_epoch, last_number = redis.call('LLEN', BOX), 0, 0, 0, -1
if size > 0 then
  local _
  last_epoch, last_number, _, soonest, total = struct.unpack(HEADER, redis.call('LINDEX', BOX, -1))
end

-- Whether the owner of this epoch may use the mailboxes; from now on none of a lower one may.
local function admit(epoch)
  local fence = tonumber(redis.call('GET', FENCE) or 0)
  if epoch > fence then
    redis.call('SET', FENCE, whole(epoch))
  end
  return epoch >= fence
end

-- A server that is short of memory refuses what adds to it, but not after another write of the same script. Reading
-- and removing give memory back: they begin with a write that changes nothing.
local function write_though_short_of_memory()
  redis.call('PERSIST', FENCE)
end

-- How many letters are not above this one; all of them come first.
local function not_above(epoch, number)
  local low, high = 0, size
  while low < high do
    local middle = math.floor((low + high) / 2)
    local its_epoch, its_number = struct.unpack(MARK, redis.call('LINDEX', BOX, middle))
    if above(its_epoch, its_number, epoch, number) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

-- The letter as the last of its box.
local function with_sums(text)
  return string.sub(text, 1, BEFORE_SUMS) .. struct.pack(SUMS, soonest, total) .. string.sub(text, AFTER_SUMS)
end

-- Removes the letters at these places (from 0, ascending), whose bodies are so long; what stays keeps its order.
local function strike(places, bytes)
  if #places == 0 then
    return
  end
  if places[#places] == #places - 1 then
    redis.call('LTRIM', BOX, #places, -1)
  else
    for _, place in ipairs(places) do
      redis.call('LSET', BOX, place, '')
    end
    redis.call('LREM', BOX, 0, '')
  end
  size, total = size - #places, total - bytes
  if size > 0 then
    redis.call('LSET', BOX, -1, with_sums(redis.call('LINDEX', BOX, -1)))
  else
    redis.call('DEL', MARK_KEY)
  end
end

-- Drops the expired letters that nothing but expired ones comes before.
local function shed()
  if size == 0 or soonest > now then
    return
  end
  local places, bytes = {}, 0
  while #places < size do
    local _, _, expires, length = read_header(redis.call('LINDEX', BOX, #places))
    if expires > now then
      break
    end
    places[#places + 1] = #places
    bytes = bytes + length
  end
  strike(places, bytes)
end
