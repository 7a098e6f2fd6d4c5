-- Move positions on, only from where this writer left them: where they are gone (the view was emptied) or where somebody
-- else moved them, nothing is written and the writer reads them again.
-- KEYS[1] hash of a topic's positions. ARGV: topic id, then partition, position expected, position new, repeated.
-- Returns 1 moved, 0 not.
if redis.call('HGET', KEYS[1], 'topic_id') ~= ARGV[1] then return 0 end
for i = 2, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[i]) ~= ARGV[i + 1] then return 0 end
end
for i = 2, #ARGV, 3 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
end
return 1
