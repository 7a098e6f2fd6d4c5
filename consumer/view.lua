-- Compare and write, in one atomic step: the higher rank stays; of equal ranks the record that stands later in the topic.
-- KEYS[1] hash of one product. ARGV: four parts of the rank, its text, "1" with a result and "0" for a deletion,
-- the result, milliseconds that a deletion is remembered, partition, offset, the headers to publish it again with.
-- Returns 0 outranked by a record that stands later, 1 written, 2 deletion marked, 3 outranked, and standing last.
local held = redis.pcall('HMGET', KEYS[1], 'rank', 'at')
if held.err then
  redis.call('DEL', KEYS[1]) -- not a hash: nothing of ours, and it would stop the view for good
elseif held[1] then
  local partition, offset = string.match(held[2] or '', '^(%d+):(%d+)$')
  local behind = partition == ARGV[9] and tonumber(offset) - tonumber(ARGV[10]) -- how far the held one stands behind
  local place = 0
  local higher = false
  for part in string.gmatch(held[1], '%d+') do
    place = place + 1
    local mine, theirs = tonumber(ARGV[place]), tonumber(part)
    if mine < theirs then return behind and behind >= 0 and 0 or 3 end
    if mine > theirs then
      higher = true
      break
    end
  end
  if not higher and behind and behind > 0 then return 0 end
end
local at = ARGV[9] .. ':' .. ARGV[10]
if ARGV[6] == '1' then
  redis.call('HSET', KEYS[1], 'rank', ARGV[5], 'at', at, 'headers', ARGV[11], 'result', ARGV[7])
  redis.call('PERSIST', KEYS[1])
  return 1
end
redis.call('HSET', KEYS[1], 'rank', ARGV[5], 'at', at, 'headers', ARGV[11])
redis.call('HDEL', KEYS[1], 'result')
redis.call('PEXPIRE', KEYS[1], ARGV[8])
return 2
