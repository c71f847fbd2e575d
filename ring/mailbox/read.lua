-- Reads the letters behind one, or from the first, and marks them as read. ARGV: now, read, the owner's epoch, epoch and
-- number of the one before or "" twice, letters and bytes that are enough.
-- Answers nothing (fenced), or the time, the mark as it was or "", 1 if there are more, then the letters.

local epoch, most, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[6]), tonumber(ARGV[7])

write_though_short_of_memory()
if not admit(epoch) then
  return {}
end
shed()

local mark = redis.call('GET', MARK_KEY) or ''
local answer = {whole(now), mark, 0}
local place, bytes, read_epoch, read_number = 0, 0, 0, -1
if ARGV[4] ~= '' then
  place = not_above(tonumber(ARGV[4]), tonumber(ARGV[5]))
end

local full = false
while place < size and not full do
  for _, text in ipairs(redis.call('LRANGE', BOX, place, place + CHUNK - 1)) do
    local its_epoch, number, expires, length = read_header(text)
    if expires > now then
      -- At least one, however long it is.
      full = #answer - 3 >= most or #answer > 3 and bytes + length > most_bytes
      if full then
        answer[3] = 1
        break
      end
      answer[#answer + 1] = text
      bytes, read_epoch, read_number = bytes + length, its_epoch, number
    end
  end
  place = place + CHUNK
end

-- Never back: who reads again from the first has still seen the rest.
local marked_epoch, marked_number = 0, -1
if mark ~= '' then
  marked_epoch, marked_number = struct.unpack(MARK, mark)
end
if above(read_epoch, read_number, marked_epoch, marked_number) then
  redis.call('SET', MARK_KEY, struct.pack(MARK, read_epoch, read_number))
  local lives = redis.call('PTTL', BOX)
  if lives > 0 then
    redis.call('PEXPIRE', MARK_KEY, whole(lives))
  end
end
return answer
