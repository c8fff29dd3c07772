-- Returns the fencing token, or nothing.
return lease(take(), take(), tonumber(take()), take())
