package rate

// slots is how many slots a Counter keeps.
const slots = 64

// Counter counts events per slot of time, for the newest 64 slots. What a slot is,
// such as a second, is up to the caller. [Counter.Advance] must be called before
// anything else is, with the slot of the present.
type Counter struct {
	slots  [slots]int32
	newest int64 // number of the slot that is being filled
}

// Advance moves on to a slot, and clears the slots in between. A slot of the past is
// ignored.
func (c *Counter) Advance(slot int64) {
	for n := max(c.newest+1, slot-slots+1); n <= slot; n++ {
		c.slots[n%slots] = 0
	}
	c.newest = max(c.newest, slot)
}

// Add counts n in the newest slot. A negative n takes back.
func (c *Counter) Add(n int32) {
	c.slots[uint64(c.newest)%slots] += n
}

// AddAt counts n in a slot of the past. A slot that is no longer kept, or is in the
// future, is ignored.
func (c *Counter) AddAt(slot int64, n int32) {
	if slot > c.newest-slots && slot >= 0 && slot <= c.newest {
		c.slots[slot%slots] += n
	}
}

// Sum adds up count slots, from the newest back, after leaving out the newest skip.
func (c *Counter) Sum(skip, count int) (total int64) {
	for n := c.newest - int64(skip); n > c.newest-int64(skip+count) && n > c.newest-slots; n-- {
		if n >= 0 {
			total += int64(c.slots[n%slots])
		}
	}
	return total
}

// Total adds up all slots.
func (c *Counter) Total() int64 { return c.Sum(0, slots) }

// ago gives the count of one slot: 0 is the newest.
func (c *Counter) ago(n int) float64 {
	if n < 0 || int64(n) > c.newest {
		return 0
	}
	return float64(c.slots[(c.newest-int64(n))%slots])
}
