-- Returns the fence, or nothing.
return lease(take(), take(), tonumber(take()), take())
