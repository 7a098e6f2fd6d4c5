-- Compare and write, in one atomic step: the higher rank stays; of equal ranks the later record.
-- KEYS[1] hash of one product. ARGV: four parts of the rank, its text, "1" with a result and "0" for a deletion,
-- the result, milliseconds that a deletion is remembered. Returns 0 outranked, 1 written, 2 deletion marked.
local held = redis.pcall('HGET', KEYS[1], 'rank')
if type(held) == 'table' then
  redis.call('DEL', KEYS[1]) -- not a hash: nothing of ours, and it would stop the view for good
elseif held then
  local place = 0
  for part in string.gmatch(held, '%d+') do
    place = place + 1
    local mine, theirs = tonumber(ARGV[place]), tonumber(part)
    if mine < theirs then return 0 end
    if mine > theirs then break end
  end
end
if ARGV[6] == '1' then
  redis.call('HSET', KEYS[1], 'rank', ARGV[5], 'result', ARGV[7])
  redis.call('PERSIST', KEYS[1])
  return 1
end
redis.call('HSET', KEYS[1], 'rank', ARGV[5])
redis.call('HDEL', KEYS[1], 'result')
redis.call('PEXPIRE', KEYS[1], ARGV[8])
return 2
