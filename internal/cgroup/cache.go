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
	young, aged map[uint64]entry
}

// entry is a description together with the argument claimed of Describe, which an Info does not have.
type entry struct {
	*Info
	claimed int
}

// NewCache makes an empty Cache. A limit below 1 means DefaultLimit.
func NewCache(limit int) *Cache {
	if limit < 1 {
		limit = DefaultLimit
	}
	return &Cache{limit: limit, young: make(map[uint64]entry), aged: make(map[uint64]entry)}
}

// Put sets the description of a cgroup from its path. A user other than root may have chosen the last
// names of the path, as many as claimed. Put replaces another description, since a v1 cgroup can be
// renamed, and a directory can change its owner. It returns the new description, or nil if the cgroup
// is known with this path and claimed.
func (c *Cache) Put(id uint64, path string, claimed int) *Info {
	known, ok := c.find(id)
	if ok && known.Path == path && known.claimed == claimed {
		return nil
	}
	info := Describe(path, claimed)
	c.keep(id, entry{&info, claimed})
	return &info
}

// SetNames replaces the description of a cgroup by a copy with these names. It does nothing if
// the cgroup is not known any more, or is in another container or pod by now.
func (c *Cache) SetNames(id uint64, container, podUID string, n Names) {
	known, ok := c.find(id)
	if !ok || known.Container != container || known.PodUID != podUID {
		return
	}
	info := *known.Info
	info.Pod, info.Namespace, info.ContainerName, info.Image = n.Pod, n.Namespace, n.Container, n.Image
	c.keep(id, entry{&info, known.claimed})
}

// Names are what the path of a cgroup does not show of its container. Unknown ones are empty.
type Names struct {
	Pod, Namespace string // of Kubernetes
	Container      string // as the engine or, in a pod, its specification calls it
	Image          string
}

// Get returns the description of a cgroup, and whether it is known. The caller must
// not modify the Info. It may keep it, as the cache never modifies it either.
func (c *Cache) Get(id uint64) (*Info, bool) {
	known, ok := c.find(id)
	return known.Info, ok
}

func (c *Cache) find(id uint64) (entry, bool) {
	if known, ok := c.young[id]; ok {
		return known, true
	}
	known, ok := c.aged[id]
	if ok {
		c.keep(id, known)
	}
	return known, ok
}

// keep may leave an older entry of this id in the aged generation. Get prefers the
// young entry, which also stays longer.
func (c *Cache) keep(id uint64, e entry) {
	if len(c.young) >= c.limit {
		c.young, c.aged = c.aged, c.young
		clear(c.young)
	}
	c.young[id] = e
}
