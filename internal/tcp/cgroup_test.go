package tcp_test

import (
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// A cgroup is named by its unit, else by its container. Units that every login has name
// nothing.
func TestCgroup_Service(t *testing.T) {
	id := "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, tt := range []struct{ unit, container, want string }{
		{"php8.2-fpm.service", "", "php8.2-fpm"},
		{"nginx.service", id, "nginx"},
		{"run-r12.scope", "", "run-r12"},
		{"", id, "0123456789ab"},
		{"session-c2.scope", id, "0123456789ab"},
		{"session-3.scope", "", ""},
		{"user@1000.service", "", ""},
		{"", "", ""},
		{strings.Repeat("x", 200) + ".service", "", strings.Repeat("x", 93) + "..."},
	} {
		c := tcp.Cgroup{Unit: tt.unit, Container: tt.container}
		if got := c.Service(); got != tt.want {
			t.Errorf("%+v is named %q, want %q", c, got, tt.want)
		}
	}
}
