-- By the clock that all scripts go by.
return whole(now)
