package record

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// What the caches keep is this socket's and this owner's, not another's that has the slot or
// differs in one member.
func TestMapped_CachesSameAsUncached(t *testing.T) {
	groups := []*tcp.Cgroup{nil, {Path: "/a"}, {Path: "/b"}, pod(), named(), quadlet()}
	ends := []tcp.Endpoint{{}, endpoint("192.0.2.1", 0), endpoint("192.0.2.1", 80), endpoint("2001:db8::1", 80), {Port: 80}}
	for _, schema := range []Schema{SchemaECS, SchemaOTel} {
		random := rand.New(rand.NewPCG(1, 2))
		used := NewEncoder(schema, nil)
		for range 2000 {
			event := fullV4()
			event.Cookie = uint64(random.IntN(3)) * 512 << random.IntN(2)
			event.Local, event.Peer = ends[random.IntN(len(ends))], ends[random.IntN(len(ends))]
			event.Netns, event.Role, event.Mapped, event.IPv6 = uint32(random.IntN(2)), tcp.Role(random.IntN(4)), random.IntN(2) == 0, random.IntN(2) == 0
			event.Owner = task(uint32(random.IntN(2)<<8), "comm")
			event.Owner.Source = tcp.PIDSource(random.IntN(7))
			event.UID, event.Cgroup = uint32(random.IntN(2)), groups[random.IntN(len(groups))]
			got, want := string(used.Transition(nil, &event)), string(NewEncoder(schema, nil).Transition(nil, &event))
			if got != want {
				t.Fatalf("%s: got %s, want %s", schema, got, want)
			}
		}
	}
}

// A path is whole if it takes at most its bytes of the line. Of a longer one the end stays, in
// whole characters, and the record has a mark.
func TestMapped_LongPath(t *testing.T) {
	const maxBytes = 40
	for _, letter := range []string{"x", "/", "é", "\x01", "\"", "\xff", "\U000e0001"} {
		for count := range 60 {
			path := "/" + strings.Repeat(letter, count)
			whole := string(appendString(nil, path))
			members := decodeJSON(t, append(append([]byte("{"), object{}.path("path", path, maxBytes).line[1:]...), '}'))
			shown, marked := members["path"].(string), members["tcpshift.truncated"] == true
			size := len(appendString(nil, shown)) - len(`""`)
			switch {
			case len(whole)-len(`""`) <= maxBytes:
				if marked || string(appendString(nil, shown)) != strings.ReplaceAll(whole, `\ufffd`, "\ufffd") {
					t.Errorf("%q becomes %q, marked %v", path, shown, marked)
				}
			case !marked || letter != "\xff" && (size > maxBytes || size < maxBytes-12 || !strings.HasSuffix(path, shown)):
				t.Errorf("%q becomes %q of %d bytes, marked %v", path, shown, size, marked)
			}
		}
	}
}

// A number with a fraction always has a point.
func TestMapped_Double(t *testing.T) {
	for v, want := range map[float64]string{0: "0.0", 1: "1.0", 0.788: "0.788", 83.3333: "83.333", 1e9: "1000000000.0"} {
		if got := string(object{}.double("v", v).line); got != `,"v":`+want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
}

// named is a pod's cgroup whose names have been found.
func named() *tcp.Cgroup {
	c := pod()
	c.Pod, c.Namespace, c.ContainerName, c.Image = "web-7d4b9c-x2x7k", "shop", "nginx", "docker.io/library/nginx:1.27"
	return c
}

// quadlet is a container of Podman's in a unit.
func quadlet() *tcp.Cgroup {
	return &tcp.Cgroup{
		Path: "/system.slice/db.service/libpod-payload-" + containerID, Unit: "db.service",
		Container: containerID, Runtime: "podman", ContainerName: "systemd-\"db\"\n", Image: "docker.io/library/postgres:17",
	}
}
