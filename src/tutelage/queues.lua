-- Every operation of tutelage.queues on one queue, each whole or not at all. KEYS[1] is the prefix of the queue's keys,
-- ARGV[1] the operation; the keys are described at the top of queues.py.

local P, G = KEYS[1], 'workers'
local PRIORITIES = {'high', 'normal', 'low'}
local function now() local t = redis.call('TIME'); return t[1] * 1000 + math.floor(t[2] / 1000) end
local function entry(id) return P .. 'entry:' .. id end
local function get(id, ...) return unpack(redis.call('HMGET', entry(id), ...)) end
local function stream(priority)
  local s = P .. priority
  if redis.call('EXISTS', s) == 0 then redis.call('XGROUP', 'CREATE', s, G, '0', 'MKSTREAM') end
  return s
end
local function enqueue(id)
  local at = redis.call('XADD', stream(get(id, 'priority')), '*', 'id', id)
  redis.call('HSET', entry(id), 'state', 'queued', 'at', at)
end
local function leave(id)
  local priority, at = get(id, 'priority', 'at')
  redis.call('XACK', stream(priority), G, at)
  redis.call('XDEL', P .. priority, at)
  redis.call('ZREM', P .. 'delayed', id)
end
local function finish(id, state, keep, reason)
  leave(id)
  redis.call('HSET', entry(id), 'state', state)
  if reason then redis.call('HSET', entry(id), 'error', reason) end
  if state == 'dead' then redis.call('ZADD', P .. 'dead', now(), id) else redis.call('PEXPIRE', entry(id), keep) end
end

local operations = {}

function operations.put(ARGV)
  local id, body, context, priority = unpack(ARGV)
  if redis.call('EXISTS', entry(id)) == 1 then return 0 end
  redis.call('HSET', entry(id), 'body', body, 'context', context, 'priority', priority, 'deliveries', 0, 'token', 0)
  enqueue(id)
  return 1
end

-- Everybody reads under one consumer name: who holds an entry is in its hash, fenced by the token, and names of workers
-- that died do not pile up in the group. With nothing to claim it says where the streams end: waiting begins there.
function operations.claim(ARGV)
  local worker, lease, most, keep = unpack(ARGV)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'delayed', '-inf', now(), 'LIMIT', 0, 100)) do
    redis.call('ZREM', P .. 'delayed', id)
    enqueue(id)
  end
  local function deliver(id)
    redis.call('HSET', entry(id), 'state', 'running', 'worker', worker)
    local token = redis.call('HINCRBY', entry(id), 'token', 1)
    local count = redis.call('HINCRBY', entry(id), 'deliveries', 1)
    return {id, token, count, get(id, 'body'), get(id, 'context'), get(id, 'priority')}
  end
  for _, priority in ipairs(PRIORITIES) do
    local s = stream(priority)
    while true do
      local idle = redis.call('XPENDING', s, G, 'IDLE', lease, '-', '+', 1)[1]
      if not idle then break end
      local item = redis.call('XCLAIM', s, G, 'worker', lease, idle[1])[1]
      local id = item[2][2]
      local former, count, cancel = get(id, 'worker', 'deliveries', 'cancel')
      local reason = 'worker ' .. former .. ' died or was cut off during delivery ' .. count .. ' of ' .. most
      redis.call('HSET', entry(id), 'error', reason)
      if cancel then finish(id, 'cancelled', keep)
      elseif tonumber(count) >= tonumber(most) then finish(id, 'dead', keep)
      else return deliver(id) end
    end
  end
  local ends = {}
  for _, priority in ipairs(PRIORITIES) do
    local new = redis.call('XREADGROUP', 'GROUP', G, 'worker', 'COUNT', 1, 'STREAMS', P .. priority, '>')
    if new then return deliver(new[1][2][1][2][2]) end
    local info = redis.call('XINFO', 'STREAM', P .. priority)
    for i = 1, #info, 2 do if info[i] == 'last-generated-id' then ends[#ends + 1] = info[i + 1] end end
  end
  return ends
end

function operations.renew(ARGV)
  local id, token = ARGV[1], ARGV[2]
  local current, state, cancel, priority, at, count = get(id, 'token', 'state', 'cancel', 'priority', 'at', 'deliveries')
  if current ~= token then return 'lost' end
  if state ~= 'running' then return 'lost' end
  if cancel then return 'cancelled' end
  redis.call('XCLAIM', P .. priority, G, 'worker', 0, at, 'JUSTID')
  return 'ok'
end

function operations.settle(ARGV)
  local id, token = ARGV[1], ARGV[2]
  local current, state, cancel, priority, at, count = get(id, 'token', 'state', 'cancel', 'priority', 'at', 'deliveries')
  if current ~= token then return 'lost' end
  local outcome, keep, reason, delay, most = ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
  if state ~= 'running' then return 'ok' end
  if cancel and (outcome == 'back' or outcome == 'delayed') then outcome = 'cancelled' end
  if outcome == 'delayed' and tonumber(count) >= most then outcome = 'dead' end
  if outcome == 'back' then
    leave(id)
    redis.call('HINCRBY', entry(id), 'deliveries', -1)
    enqueue(id)
  elseif outcome == 'delayed' then
    leave(id)
    redis.call('HSET', entry(id), 'state', 'delayed', 'error', reason)
    redis.call('ZADD', P .. 'delayed', now() + delay, id)
  else finish(id, outcome, keep, outcome == 'dead' and reason) end
  return 'ok'
end

function operations.cancel(ARGV)
  local id, keep = unpack(ARGV)
  local state = get(id, 'state')
  if state == 'queued' or state == 'delayed' then finish(id, 'cancelled', keep); return 'cancelled' end
  if state == 'running' then redis.call('HSET', entry(id), 'cancel', 1) end
  return state
end

function operations.ahead(ARGV)
  local state, own, at = get(ARGV[1], 'state', 'priority', 'at')
  local ahead = 0
  if state ~= 'queued' then return state and 0 end
  for _, priority in ipairs(PRIORITIES) do
    local s, last = stream(priority), priority == own and '(' .. at or '+'
    ahead = ahead + #redis.call('XRANGE', s, '-', last) - #redis.call('XPENDING', s, G, '-', last, 1000000)
    if priority == own then return ahead end
  end
end

-- An entry that was never delivered waits since its item was made, whose id begins with the millisecond of that.
function operations.backlog(ARGV)
  local lease, at = tonumber(ARGV[1]), now()
  local queued, running, waited = 0, 0, 0
  local function since(begun) waited = math.max(waited, at - begun) end
  for _, priority in ipairs(PRIORITIES) do
    local s = stream(priority)
    local pending = redis.call('XPENDING', s, G)[1]
    queued, running = queued + redis.call('XLEN', s) - pending, running + pending
    local group, last = redis.call('XINFO', 'GROUPS', s)[1], nil
    for i = 1, #group, 2 do if group[i] == 'last-delivered-id' then last = group[i + 1] end end
    local new = redis.call('XRANGE', s, '(' .. last, '+', 'COUNT', 1)[1]
    if new then since(tonumber(string.match(new[1], '^%d+'))) end
    local idle = redis.call('XPENDING', s, G, 'IDLE', lease, '-', '+', 1)[1]
    if idle then since(at - idle[3] + lease) end
  end
  local due = redis.call('ZRANGEBYSCORE', P .. 'delayed', '-inf', at, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if due then since(tonumber(due)) end
  return {queued, redis.call('ZCARD', P .. 'delayed'), running, redis.call('ZCARD', P .. 'dead'), waited}
end

function operations.revive(ARGV)
  if redis.call('ZREM', P .. 'dead', ARGV[1]) == 0 then return 0 end
  redis.call('HSET', entry(ARGV[1]), 'deliveries', 0)
  redis.call('HDEL', entry(ARGV[1]), 'cancel')
  enqueue(ARGV[1])
  return 1
end

local operation = table.remove(ARGV, 1)
return operations[operation](ARGV)
