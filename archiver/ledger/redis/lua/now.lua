-- Returns the time of the clock that all scripts use.
return whole(now)
