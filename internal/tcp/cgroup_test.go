package tcp_test

import (
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// A cgroup is named by its unit, else by its container's name. Units that every login has name nothing, and
// a name that a user may have chosen does not replace another one.
func TestCgroup_Service(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, tt := range []struct {
		cgroup  tcp.Cgroup
		want    string
		claimed bool
	}{
		{tcp.Cgroup{Unit: "php8.2-fpm.service"}, "php8.2-fpm", false},
		{tcp.Cgroup{Unit: "run-r12.scope"}, "run-r12", false},
		{tcp.Cgroup{Unit: "nginx.service", UnitClaimed: true}, "nginx", true},
		{tcp.Cgroup{Unit: "nginx.service", ContainerName: "web", Container: id}, "nginx", false},
		{tcp.Cgroup{ContainerName: "web", Container: id}, "web", false},
		{tcp.Cgroup{Container: id}, "", false},
		{tcp.Cgroup{Container: id, ContainerClaimed: true}, "", false},
		{tcp.Cgroup{Unit: "session-c2.scope", ContainerName: "web"}, "web", false},
		{tcp.Cgroup{Unit: "session-3.scope"}, "", false},
		{tcp.Cgroup{Unit: "user@1000.service"}, "", false},
		{tcp.Cgroup{}, "", false},
		{tcp.Cgroup{Unit: "nginx.service", UnitClaimed: true, ContainerName: "web"}, "web", false},
		{tcp.Cgroup{Unit: "nginx.service", ContainerName: "web", ContainerClaimed: true}, "nginx", false},
		{tcp.Cgroup{Unit: "nginx.service", UnitClaimed: true, ContainerName: "web", ContainerClaimed: true}, "nginx", true},
		{tcp.Cgroup{ContainerName: "web", ContainerClaimed: true}, "web", true},
		{tcp.Cgroup{Unit: strings.Repeat("x", 200) + ".service"}, strings.Repeat("x", 93) + "...", false},
		{tcp.Cgroup{ContainerName: strings.Repeat("x", 200)}, strings.Repeat("x", 93) + "...", false},
	} {
		if got, claimed := tt.cgroup.Service(), tt.cgroup.IsServiceClaimed(); got != tt.want || claimed != tt.claimed {
			t.Errorf("%+v is named %q, claimed %v; want %q, %v", tt.cgroup, got, claimed, tt.want, tt.claimed)
		}
	}
}
