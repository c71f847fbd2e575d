-- Removes exactly these letters; those that are not there are no error. ARGV: now, remove, then epoch and number of each,
-- ascending, packed one behind the other.

local named, PAIR = ARGV[3], 16

write_though_short_of_memory()
shed()

local at = 1
local epoch, number

local function next_named()
  if at > #named then
    epoch = nil
  else
    epoch, number = struct.unpack(MARK, named, at)
    at = at + PAIR
  end
end

next_named()
local place, places, bytes = 0, {}, 0
while epoch and place < size do
  local left = (#named - at + 1) / PAIR + 1
  local chunk = redis.call('LRANGE', BOX, place, place + math.min(left, CHUNK) - 1)
  for i, text in ipairs(chunk) do
    local its_epoch, its_number, _, length = read_header(text)
    while epoch and above(its_epoch, its_number, epoch, number) do
      next_named()
    end
    if epoch == its_epoch and number == its_number then
      places[#places + 1] = place + i - 1
      bytes = bytes + length
      next_named()
    end
  end
  place = place + #chunk
  -- Letters that are not named may be many.
  if epoch and places[#places] ~= place - 1 then
    place = math.max(place, not_above(epoch, number - 1))
  end
end
strike(places, bytes)
if size == 0 then
  redis.call('DEL', MARK_KEY)
end
return 0
