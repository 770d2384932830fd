package cgroup

// DefaultLimit is the default limit of a Cache, in cgroups: more than a full node has
// at one time. Filled with the paths of containers it takes a few megabytes.
const DefaultLimit = 8192

// Cache maps the ids of cgroups to descriptions. Its size is bounded, also on a host
// where cgroups are made and removed all the time. It is not safe for concurrent use.
//
// The entries are in two generations of at most limit each. A lookup moves an entry
// from the aged to the young generation. A full young generation becomes the aged one,
// and the entries of the former aged generation are dropped. The ids put
// or found last, as many as limit, are always present; in all there are at most 2 x limit.
type Cache struct {
	limit       int
	young, aged map[uint64]*Info
}

// NewCache makes an empty Cache. A limit below 1 means DefaultLimit.
func NewCache(limit int) *Cache {
	if limit < 1 {
		limit = DefaultLimit
	}
	return &Cache{limit: limit, young: make(map[uint64]*Info), aged: make(map[uint64]*Info)}
}

// Put sets the path of a cgroup. It replaces another path, since a v1 cgroup can be
// renamed.
func (c *Cache) Put(id uint64, path string) {
	if known, ok := c.Get(id); ok && known.Path == path {
		return
	}
	info := Describe(path)
	c.keep(id, &info)
}

// Get returns the description of a cgroup, and whether it is known. The caller must
// not modify the Info. It may keep it, as the cache never modifies it either.
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

// keep may leave an older entry of this id in the aged generation. Get prefers the
// young entry, which also stays longer.
func (c *Cache) keep(id uint64, info *Info) {
	if len(c.young) >= c.limit {
		c.young, c.aged = c.aged, c.young
		clear(c.young)
	}
	c.young[id] = info
}
