-- Prepended to every script of this folder. Redis runs each script atomically. Keys: the table in ledger.py; letters
-- of a row's fields: rows.py.

local prefix = ARGV[1]
local now = tonumber(ARGV[2]) -- microseconds; empty: by the server's clock
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local argument = 2
local function take()
  argument = argument + 1
  return ARGV[argument]
end

local OPEN = {discovered = true, queued = true, running = true, waiting = true}
local JUDGED = {skipped = true, external = true, source_failed = true}
local MAX_WAIT = 86400 * 1000000 -- ledger.models.MAX_WAIT
local MAX_LEASE = 6 * 3600 * 1000000 -- ledger.models.MAX_LEASE
local CLOCK_STEP = 300 * 1000000 -- ledger.models.CLOCK_STEP
local DEADLINE_DIVISOR = 2 -- ledger.models.DEADLINE_DIVISOR
local REMOVED = {erasing = true, erased = true, expired = true} -- ledger.models.REMOVED_STATES
local EVENTS = { -- ledger.models.EVENT_STATES
  archived = true, quarantined = true, lost = true, damaged = true, erased = true, expired = true,
}
local MAX_EVENTS = 100000 -- ledger.models.MAX_EVENTS
local UNSTORED = { -- ledger.models.UNSTORED_STATES
  skipped = true, external = true, source_failed = true, erasing = true, erased = true, expired = true,
}
local COUNTED = {archived = true, quarantined = true} -- ledger.models.COUNTED_STATES
local UNKNOWN_TYPE = 'unknown' -- ledger.models.UNKNOWN_TYPE
local TIMED = {queued = true, running = true, waiting = true} -- these have an index by time as well

-- Lua would write a large number as 1.7e+15.
local function whole(number)
  return string.format('%.0f', number)
end

local function asset_key(id)
  return prefix .. 'asset:' .. id
end

local function state_key(state)
  return prefix .. 'state:' .. state
end

local function time_key(state)
  return prefix .. 'time:' .. state
end

-- Writes fields of a row. Defaults are not stored: '' and the number 0 remove the field.
local function set(id, fields)
  local kept, gone = {}, {}
  for name, value in pairs(fields) do
    if value == '' or value == 0 then
      gone[#gone + 1] = name
    else
      kept[#kept + 1] = name
      kept[#kept + 1] = type(value) == 'number' and whole(value) or value
    end
  end
  if #kept > 0 then redis.call('HSET', asset_key(id), unpack(kept)) end
  if #gone > 0 then redis.call('HDEL', asset_key(id), unpack(gone)) end
end

-- Reads the fields the scripts decide on; nil for an unknown asset.
local function read(id)
  local found = redis.call('HMGET', asset_key(id), 'st', 'ex', 'si', 'at', 'mi', 'fe', 'ho', 'ca', 'de', 'nx', 'mo',
    'fp', 'lu')
  if not found[1] then return nil end
  return {
    st = found[1], ex = found[2], si = found[3] or '', at = tonumber(found[4] or 0), mi = tonumber(found[5] or 0),
    fe = found[6] or nil, ho = found[7] or nil, ca = found[8] or nil, de = tonumber(found[9] or 0),
    nx = tonumber(found[10] or 0), mo = tonumber(found[11] or 0), fp = found[12] or '',
    lu = tonumber(found[13] or 0),
  }
end

local function whole_row(id)
  local row = redis.call('HGETALL', asset_key(id))
  table.insert(row, 1, id)
  return row
end

local function forget_work(id)
  local work = prefix .. 'work:' .. id
  for _, key in ipairs(redis.call('SMEMBERS', work)) do
    redis.call('UNLINK', key)
  end
  redis.call('DEL', work)
  redis.call('HDEL', prefix .. 'progress', id)
end

-- Which destinations hold an asset is in `cp`: when its state was last set, `|`, `+` when the asset is counted in the
-- hash `copies` (else `-`), and 6 letters for each destination (rows.py). A worker of a version that does not know the
-- field sets the state and leaves it: what it says is not valid then. Returns what follows the `|`, the letters, and
-- whether they are valid.
local function read_copies(id)
  local found = redis.call('HMGET', asset_key(id), 'ch', 'cp')
  local changed, text = string.match(found[2] or '', '^(%d*)|(.*)$')
  return text or '', string.sub(text or '', 2), changed == found[1]
end

local function count_copies(letters, by)
  for i = 1, #letters, 6 do
    redis.call('HINCRBY', prefix .. 'copies', string.sub(letters, i, i + 5), by)
  end
end

-- Writes `letters` for an asset in `state`, set at `changed`. `before`: what follows the `|` so far.
local function put_copies(id, before, letters, state, changed)
  local text = letters ~= '' and (COUNTED[state] and '+' or '-') .. letters or ''
  if text ~= before then
    if string.sub(before, 1, 1) == '+' then count_copies(string.sub(before, 2), -1) end
    if string.sub(text, 1, 1) == '+' then count_copies(letters, 1) end
  end
  set(id, {cp = text ~= '' and changed .. '|' .. text or ''})
end

-- Sets what the destinations hold of an asset, whatever was known before.
local function set_copies(id, letters)
  local row = redis.call('HMGET', asset_key(id), 'st', 'ch')
  put_copies(id, (read_copies(id)), letters, row[1], row[2])
end

-- Takes a number, and for each destination 5 letters, its name and a sixth letter. Returns the letters; nil without a
-- number.
local function take_copies()
  local number, letters = tonumber(take()), {}
  if not number then return nil end
  for n = 1, number do
    local digest, name = take(), take()
    redis.call('HSETNX', prefix .. 'destinations', digest, name)
    letters[n] = digest .. take()
  end
  return table.concat(letters)
end

-- Changes an asset's state, in the row and every index; the only place that does. `from`: nil for a new asset; `at`:
-- the time that belongs to the new state (when it was queued, its lease ends, its wait ends).
local function move(id, from, to, expires, at)
  local before, letters, is_valid = '', '', false
  if from then
    before, letters, is_valid = read_copies(id)
    redis.call('ZREM', state_key(from), id)
    if not (OPEN[from] and OPEN[to]) then redis.call('SREM', prefix .. 'acknowledged', id) end
    if TIMED[from] then
      redis.call('ZREM', time_key(from), id)
      redis.call('ZREM', prefix .. 'ready', id)
      redis.call('ZREM', time_key('ready'), id)
    end
  end
  redis.call('ZADD', state_key(to), expires, id)
  if TIMED[to] then redis.call('ZADD', time_key(to), at, id) end
  set(id, {st = to, ch = now, nx = to == 'waiting' and at or '', ak = '', lu = ''})
  if before ~= '' and (UNSTORED[to] or is_valid) then
    put_copies(id, before, UNSTORED[to] and '' or letters, to, whole(now))
  end
  if not OPEN[to] then
    set(id, {ho = ''}) -- any lease is lost
    forget_work(id)
  end
end

local function take_seen()
  return {
    id = take(), ty = take(), ex = take(), verdict = take(), cr = take(), ro = take(), se = take(), si = take(),
    re = take(),
  }
end

-- The manifest's key holds the date the copy used, not the first one seen. A row that was made of a tombstone knows
-- neither type, room nor session.
local function set_known(id, seen)
  if seen.cr ~= '' then set(id, {cr = seen.cr}) end
  if seen.ty ~= UNKNOWN_TYPE and redis.call('HGET', asset_key(id), 'ty') == UNKNOWN_TYPE then
    set(id, {ty = seen.ty, ro = seen.ro, se = seen.se})
  end
end

-- Enters an unknown asset, and counts it in `seen`.
local function enter(seen, state)
  redis.call('INCR', prefix .. 'seen')
  set(seen.id, {
    ty = seen.ty, ex = seen.ex, cr = seen.cr, ro = seen.ro, se = seen.se, si = seen.si, re = seen.re, fs = now,
  })
  move(seen.id, nil, state, seen.ex)
end

local function reopen(id, row, keep_stored)
  redis.call('ZREM', prefix .. 'warned', id)
  set(id, {at = '', mi = '', fp = '', de = '', mo = '', ho = '', re = '', sc = '', wa = ''})
  if not keep_stored then set(id, {sb = '', so = '', gs = ''}) end
  if row.st ~= 'discovered' then move(id, row.st, 'discovered', row.ex) end
end

local function add_totals()
  for name in take do
    redis.call('HINCRBY', prefix .. 'totals', name, take())
  end
end

local function take_settlement()
  return {
    state = take(), re = take(), delay = tonumber(take()) or 0, counts = take() == '1', mismatch = take() == '1',
    fp = take(), gone = take() == '1', sb = take(), so = take(), sc = take(), wa = take(), cp = take_copies(),
  }
end

-- Sets the result of an attempt, or of a manifest.
local function set_result(id, done)
  set(id, {re = done.re, sb = done.sb, so = done.so, sc = done.sc, wa = done.wa, de = '', mo = ''})
  if done.wa ~= '' and done.state == 'archived' then
    redis.call('ZADD', prefix .. 'warned', whole(now), id)
  else
    redis.call('ZREM', prefix .. 'warned', id)
  end
end

-- Keeps an event of the asset as it is now; nothing when too many wait.
local function keep_event(id)
  if redis.call('LLEN', prefix .. 'outbox') >= MAX_EVENTS then
    redis.call('INCR', prefix .. 'outbox_dropped')
    return false
  end
  local number = whole(redis.call('INCR', prefix .. 'outbox_number'))
  redis.call('RPUSH', prefix .. 'outbox', cjson.encode({number, whole_row(id)}))
  return true
end

-- Keeps an event of an asset that has come to `state`, while anybody wants events.
local function announce(id, state)
  if EVENTS[state] and redis.call('EXISTS', prefix .. 'outbox_on') == 1 then keep_event(id) end
end

-- Whether a time that lies at most `longest` ahead, if the clock was not set back since, is still to come.
local function is_ahead(time, longest)
  return time > now and time <= now + longest + CLOCK_STEP
end

local function living(id, row)
  local ends = row.st == 'running' and redis.call('ZSCORE', time_key('running'), id)
  return ends and is_ahead(tonumber(ends), MAX_LEASE)
end

-- Whether an asset at an end is leased (`lease_ended`).
local function leased(row)
  return row.ho and is_ahead(row.lu, MAX_LEASE)
end

-- Whether the lease with this fencing token may still write. A row that never had a lease belongs to a ledger that was
-- flushed and filled again: nobody else got a lease, so this one stays valid.
local function owns(row, fence)
  if not row then return true end
  if not row.fe then return OPEN[row.st] end
  return row.fe == fence and row.ho
end

-- How much is stored: an object counts more than all parts, since the parts of a complete object are forgotten.
local function stored(id)
  local amount = 0
  for _, key in ipairs(redis.call('SMEMBERS', prefix .. 'work:' .. id)) do
    local is_upload = string.sub(key, #prefix + 1, #prefix + 7) == 'upload:'
    -- each has one field besides the parts or objects
    amount = amount + math.max(0, redis.call('HLEN', key) - 1) * (is_upload and 1 or 10000000)
  end
  return amount
end

-- Returns the fencing token, or nothing. `call`: an idempotency key; a client that sends the call again, because the
-- connection broke before the answer, gets the same lease.
local function lease(id, holder, duration, call)
  local row = read(id)
  if not row or not OPEN[row.st] then return false end
  if living(id, row) then return row.ca == call and row.fe end
  if row.st == 'waiting' and is_ahead(row.nx, MAX_WAIT) then return false end

  if row.ho then -- nobody settled the lease before
    local amount = stored(id)
    set(id, amount > row.mo and {mo = amount, de = 0} or {de = row.de + 1})
  end

  -- By time, so that tokens grow across a flush; never smaller, should the clock go back.
  local fence = whole(math.max(now, (tonumber(row.fe) or 0) + 1))
  set(id, {fe = fence, ho = holder, ca = call, at = row.at + 1})
  move(id, row.st, 'running', row.ex, whole(now + duration))
  return fence
end

-- Returns the fields of a hash that have not expired (each value begins with its expiry), as name, value, ...: all,
-- the one named `only`, or those that begin with `start`. Removes expired fields.
local function living_fields(key, only, start)
  local found = only and {only, redis.call('HGET', key, only)} or redis.call('HGETALL', key)
  local living_ones = {}
  for i = 1, #found, 2 do
    local name, stored_value = found[i], found[i + 1]
    if stored_value and string.sub(name, 1, #start) == start then
      local ends, value = string.match(stored_value, '^(%d*)|(.*)$')
      if ends ~= '' and tonumber(ends) <= now then
        redis.call('HDEL', key, name)
      else
        living_ones[#living_ones + 1] = name
        living_ones[#living_ones + 1] = value
      end
    end
  end
  return living_ones
end
