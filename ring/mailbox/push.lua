-- Appends letters to a mailbox. ARGV: now, push, the owner's epoch, letters and bytes that a mailbox may hold, how long it
-- keeps a letter without a ttl in ms, 1 if the caller waits for replicas or the disk, then each letter: epoch, number,
-- ttl in ms or 0, bytes of the origin, flags, run; origin; body.
-- Answers one character for each: s (stored) | a (already) | f (fenced) | F (full) | d (disordered). What comes behind a
-- disordered letter is not stored either: the caller numbers them anew, and they keep their order.

local epoch, most, most_bytes, keep = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local safely, FIRST = ARGV[7] == '1', 8
local PACKED, PACKED_BYTES = '>I8I8I8I2BI4', 31
local AT_ONCE = 1000  -- arguments of one RPUSH: Lua's stack is bounded
-- Keys live so much longer than the last of their letters: else every push would have to set their expiry.
local SLACK = 60000

if not admit(epoch) then
  return string.rep('f', #ARGV - FIRST + 1)
end

local verdicts, fresh, fresh_bytes, fresh_soonest, lives, again = {}, {}, 0, math.huge, 0, false
local full, disordered, shedded = false, false, false

-- Drops every expired letter, wherever it lies.
local function purge()
  local places, bytes, earliest = {}, 0, math.huge
  for from = 0, size - 1, CHUNK do
    for i, text in ipairs(redis.call('LRANGE', BOX, from, from + CHUNK - 1)) do
      local _, _, expires, length = read_header(text)
      if expires <= now then
        places[#places + 1] = from + i - 1
        bytes = bytes + length
      else
        earliest = math.min(earliest, expires)
      end
    end
  end
  if size > #places then
    soonest = earliest
  end
  strike(places, bytes)
end

local function fits(bytes)
  return size + #fresh < most and total + fresh_bytes + bytes <= most_bytes
end

for i = FIRST, #ARGV do
  local its_epoch, number, ttl, origin, flags, run = struct.unpack(PACKED, ARGV[i])
  local bytes = #ARGV[i] - PACKED_BYTES - origin
  local verdict = 's'
  if full then
    verdict = 'F'
  elseif not above(its_epoch, number, last_epoch, last_number) then
    local place = not_above(its_epoch, number)
    verdict = 'd'
    if place > 0 then
      local found_epoch, found_number = struct.unpack(MARK, redis.call('LINDEX', BOX, place - 1))
      if found_epoch == its_epoch and found_number == number then
        verdict, again = 'a', true
      end
    end
    disordered = disordered or verdict == 'd'
  elseif disordered then
    verdict = 'd'
  else
    if not shedded then
      shed()
      shedded = true
    end
    if not fits(bytes) and size > 0 and soonest <= now then
      purge()
    end
    if fits(bytes) then
      last_epoch, last_number = its_epoch, number
      local expires = now + (ttl > 0 and ttl or keep)
      fresh_soonest = math.min(fresh_soonest, expires)
      lives = math.max(lives, expires - now)
      fresh_bytes = fresh_bytes + bytes
      fresh[#fresh + 1] = struct.pack(HEADER, its_epoch, number, expires, 0, 0, origin, flags + (ttl > 0 and 2 or 0), run)
        .. string.sub(ARGV[i], PACKED_BYTES + 1)
    else
      verdict, full = 'F', true
    end
  end
  verdicts[#verdicts + 1] = verdict
end

if #fresh > 0 then
  soonest, total = size > 0 and math.min(soonest, fresh_soonest) or fresh_soonest, total + fresh_bytes
  fresh[#fresh] = with_sums(fresh[#fresh])
end
for from = 1, #fresh, AT_ONCE do
  redis.call('RPUSH', BOX, unpack(fresh, from, math.min(from + AT_ONCE - 1, #fresh)))
end
if #fresh > 0 and redis.call('PTTL', BOX) < lives then
  redis.call('PEXPIRE', BOX, whole(lives + SLACK))
  redis.call('PEXPIRE', MARK_KEY, whole(lives + SLACK))
end
-- WAIT is about what this connection has written: of a letter that another has stored it would say nothing.
if again and safely then
  redis.call('SET', FENCE, whole(epoch))
end
return table.concat(verdicts)
