package monitor

import (
	"net"
	"testing"

	"github.com/tcpshift/tcpshift/internal/filter"
)

// A reading of the listeners has those that match the filter. With a filter on what the table
// does not show, only listeners that were observed may count.
func TestListeners_PassFilter(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).AddrPort().Port()
	for _, tt := range []struct {
		name            string
		filter          filter.Filter
		want, knownOnly bool
	}{
		{"no filter", filter.Filter{}, true, false},
		{"its port", filter.Filter{Ports: []filter.PortRange{{First: port, Last: port}}}, true, false},
		{"another port", filter.Filter{Ports: []filter.PortRange{{First: 1, Last: 1}}}, false, false},
		{"the other family", filter.Filter{Family: 6}, false, false},
		{"a process", filter.Filter{PIDs: []uint32{1}}, true, true},
	} {
		r := hostReader{filter: tt.filter}
		table, _, err := r.readListeners([]uint16{port})
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for i := range table.Listeners {
			found = found || table.Listeners[i].Local.Port == port
		}
		if found != tt.want || table.KnownOnly != tt.knownOnly || !table.HasUnaccepted || table.ReadAt == 0 {
			t.Errorf("%s: found %v, known only %v", tt.name, found, table.KnownOnly)
		}
	}
}
