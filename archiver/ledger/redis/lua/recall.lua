-- Returns facts; see living_fields.
local key, only = prefix .. take(), take()
return living_fields(key, only, '')
