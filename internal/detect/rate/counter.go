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

// Advance makes slot the newest, and clears the slots between. It ignores a slot of the
// past.
func (c *Counter) Advance(slot int64) {
	for n := max(c.newest+1, slot-slots+1); n <= slot; n++ {
		c.slots[n%slots] = 0
	}
	c.newest = max(c.newest, slot)
}

// Add adds n, which may be negative, to the newest slot.
func (c *Counter) Add(n int32) {
	c.slots[uint64(c.newest)%slots] += n
}

// AddAt adds n to a slot. It ignores a slot that is no longer kept or is in the future.
func (c *Counter) AddAt(slot int64, n int32) {
	if slot > c.newest-slots && slot >= 0 && slot <= c.newest {
		c.slots[slot%slots] += n
	}
}

// Sum adds up count slots, from the newest one back. It first leaves out the newest skip slots. Slots that are
// not kept count as 0.
func (c *Counter) Sum(skip, count int) (total int64) {
	for n := c.newest - int64(skip); n > c.newest-int64(skip+count) && n > c.newest-slots; n-- {
		if n >= 0 {
			total += int64(c.slots[n%slots])
		}
	}
	return total
}

// Total is the sum of all slots.
func (c *Counter) Total() int64 { return c.Sum(0, slots) }

// Newest is the number of the newest slot.
func (c *Counter) Newest() int64 { return c.newest }

// at is the count of the slot with this number, 0 if it is not kept.
func (c *Counter) at(slot int64) float64 {
	if slot > c.newest {
		return 0
	}
	return c.ago(int(min(slots, c.newest-slot)))
}

// ago is the count of the slot that is n slots older than the newest, 0 if it is not kept.
func (c *Counter) ago(n int) float64 {
	if n < 0 || n >= slots || int64(n) > c.newest {
		return 0
	}
	return float64(c.slots[(c.newest-int64(n))%slots])
}
