package cgroup

import "testing"

// Names that a user other than root may have chosen are marked, and they do not replace the
// container or the pod that root has made.
func TestDescribe_Claimed(t *testing.T) {
	const (
		mine   = "/system.slice/docker-" + outer + ".scope"
		others = "/docker-" + inner + ".scope"
		slice  = "/kubepods.slice/kubepods-pod" + podU + ".slice"
		unit   = "/system.slice/php.service" // that root has delegated to a user
	)
	docker := Info{Container: outer, Runtime: "docker"}
	for _, tt := range []described{
		{"root's container", mine, docker},
		{"another container's name in root's container", mine + others, docker},
		{"a pod's name in root's container", mine + slice, docker},
		{"a unit in root's container", mine + "/system.slice/nginx.service", Info{Container: outer, Runtime: "docker", Unit: "nginx.service", UnitClaimed: true}},
		{"another container's name in root's pod", slice + others, Info{PodUID: pod}},
		{"another container's name in a user's manager", user + "/user.slice" + others, Info{Container: inner, Runtime: "docker", ContainerClaimed: true}},
		{"a container in a user's own", user + "/user.slice" + others + "/docker-" + outer + ".scope", Info{Container: outer, Runtime: "docker", ContainerClaimed: true}},
		{"a pod's name in a user's manager", user + slice, Info{Unit: "user@1000.service", PodUID: pod, ContainerClaimed: true}},
		{"a unit's name in a user's manager", user + "/app.slice/nginx.service", Info{Unit: "nginx.service", UnitClaimed: true}},
		{"a user's container in the user's unit", user + "/app.slice/nginx.service" + others, Info{Container: inner, Runtime: "docker", ContainerClaimed: true}},
		{"the user's manager", user, Info{Unit: "user@1000.service"}},
		{"a unit's name in a unit of root's", unit + "/nginx.service", Info{Unit: "php.service"}},
		{"a container's name in a unit of root's", unit + others, Info{Unit: "php.service", Container: inner, Runtime: "docker", ContainerClaimed: true}},
		{"more claimed names than there are", others, Info{Container: inner, Runtime: "docker", ContainerClaimed: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := 0 // names that root has chosen
			for _, trusted := range []string{mine, user, slice, unit} {
				if len(tt.path) >= len(trusted) && tt.path[:len(trusted)] == trusted {
					root = levels(trusted)
				}
			}
			tt.want.Path = tt.path
			if got := Describe(tt.path, levels(tt.path)-root); got != tt.want {
				t.Errorf("%s, %d names of root's\n got %+v\nwant %+v", tt.path, root, got, tt.want)
			}
		})
	}
}

func levels(path string) (n int) {
	for i := range len(path) {
		if path[i] == '/' {
			n++
		}
	}
	return n
}

// A directory that has changed its owner is described again.
func TestCache_NewOwner(t *testing.T) {
	c := NewCache(0)
	path := "/docker/" + outer
	c.Put(1, path, 0)
	c.Put(1, path, 1)
	if got, _ := c.Get(1); !got.ContainerClaimed {
		t.Errorf("got %+v, want a claimed container", got)
	}
}
