package cgroup

// DefaultLimit is a Cache's limit unless told otherwise: more cgroups than a
// full node has alive. With the paths of containers it comes to a few megabytes.
const DefaultLimit = 8192

// Cache remembers by their ids what cgroups are. It forgets those that were not
// asked for while many others were, so that it stays bounded on a host where
// cgroups come and go. NewCache makes one; it is not safe for concurrent use.
//
// There are two generations of at most limit entries. A lookup carries an entry
// from the old to the new one; when the new one is full it becomes the old one,
// and what was left in that is gone. Hence the last limit ids that were put or
// found are always there, and never more than twice as many.
type Cache struct {
	limit       int
	young, aged map[uint64]*Info
}

// NewCache makes an empty one; a limit below 1 stands for DefaultLimit.
func NewCache(limit int) *Cache {
	if limit < 1 {
		limit = DefaultLimit
	}
	return &Cache{limit: limit, young: make(map[uint64]*Info), aged: make(map[uint64]*Info)}
}

// Put says that the cgroup with this id has this path, whatever was said before:
// a cgroup of v1 can be renamed.
func (c *Cache) Put(id uint64, path string) {
	if known, ok := c.Get(id); ok && known.Path == path {
		return
	}
	info := Describe(path)
	c.keep(id, &info)
}

// Get gives what the last Put said. The Info is the cache's and must not be
// changed; the cache does not change it either, so it may be held on to.
func (c *Cache) Get(id uint64) (*Info, bool) {
	if info, ok := c.young[id]; ok {
		return info, true
	}
	info, ok := c.aged[id]
	if ok {
		c.keep(id, info)
	}
	return info, ok
}

// keep may leave an older entry of the same id among the aged: the young one is
// looked at first and outlives it.
func (c *Cache) keep(id uint64, info *Info) {
	if len(c.young) >= c.limit {
		c.young, c.aged = c.aged, c.young
		clear(c.young)
	}
	c.young[id] = info
}
