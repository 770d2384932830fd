package metrics

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Sockets count by namespace and by service. Those beyond the first 100 count as others, and one that was shown stays
// until another has twice as many.
func TestMetrics_Sockets(t *testing.T) {
	m := newTest(t, 0)
	cgroups := map[uint64]*tcp.Cgroup{7: {Unit: "web.service"}}
	read := func(busiest uint64) map[string]*dto.MetricFamily {
		census := &tcp.SocketCensus{At: time.Unix(1000, 0)}
		for i := range uint32(1000) {
			groups := []tcp.OwnerSockets{
				{SocketOwner: tcp.SocketOwner{CgroupID: 7, State: tcp.Established}, Count: 2}, {SocketOwner: tcp.SocketOwner{CgroupID: 8, Comm: tcp.Comm{'a'}, State: tcp.Listen}, Count: 1}, {SocketOwner: tcp.SocketOwner{State: tcp.TimeWait}, Count: 3},
			}
			if i >= 900 {
				groups = append(groups, tcp.OwnerSockets{SocketOwner: tcp.SocketOwner{State: tcp.SynSent}, Count: busiest})
			}
			census.Namespaces = append(census.Namespaces, tcp.NetnsSockets{Netns: 10_000 + i, Groups: groups})
		}
		m.Sockets(census, func(id uint64) *tcp.Cgroup { return cgroups[id] })
		return gather(t, m)
	}
	got := read(0)
	for _, want := range []struct {
		n      float64
		family string
		labels map[string]string
	}{
		{2, "tcpshift_sockets", map[string]string{"netns": "10000", "state": "ESTABLISHED"}},
		{1800, "tcpshift_sockets", map[string]string{"netns": "other", "state": "ESTABLISHED"}},
		{6000, "tcpshift_sockets", nil},
		{6000, "tcpshift_service_sockets", nil},
		{2000, "tcpshift_service_sockets", map[string]string{"service": "web", "state": "ESTABLISHED"}},
		{1000, "tcpshift_service_sockets", map[string]string{"service": "a", "state": "LISTEN"}},
		{3000, "tcpshift_service_sockets", map[string]string{"service": "", "state": "TIME_WAIT"}},
		{1000, "tcpshift_sockets_counted_timestamp_seconds", nil},
	} {
		if n := sum(got[want.family], want.labels); n != want.n {
			t.Errorf("%s%v is %v, want %v", want.family, want.labels, n, want.n)
		}
	}
	for _, tt := range []struct {
		busiest uint64
		netns   string
	}{{5, "10000"}, {7, "10999"}} {
		if n := sum(read(tt.busiest)["tcpshift_sockets"], map[string]string{"netns": tt.netns}); n == 0 {
			t.Errorf("with %d more sockets in others, %s has no series", tt.busiest, tt.netns)
		}
	}
}

// One user's many names and namespaces, each with more sockets than those of others, leave the busiest of each other
// user their series, as a range of subordinate uids, too, and as sockets without a user. A user who takes the name of
// another one's service does not take its series.
func TestMetrics_SocketsOfOneUser(t *testing.T) {
	const flooder, first = 65534, 1<<20 + 1<<15
	for what, floodOf := range map[string]func(i int) tcp.SocketOwner{
		"a user":           func(int) tcp.SocketOwner { return tcp.SocketOwner{UID: flooder, State: tcp.Established} },
		"subordinate uids": func(i int) tcp.SocketOwner { return tcp.SocketOwner{UID: uint32(first + i), State: tcp.Established} },
		"no user":          func(int) tcp.SocketOwner { return tcp.SocketOwner{State: tcp.TimeWait} },
	} {
		m := newTest(t, 0)
		var all float64
		census := &tcp.SocketCensus{At: time.Unix(1000, 0)}
		add := func(netns uint32, name string, owner tcp.SocketOwner, count uint64) {
			copy(owner.Comm[:], name)
			all += float64(count)
			census.Namespaces = append(census.Namespaces, tcp.NetnsSockets{
				Netns: netns, Groups: []tcp.OwnerSockets{{SocketOwner: owner, Count: count}},
			})
		}
		for i := range minNames {
			for uid := range uint32(3) {
				add(100*uid+uint32(i), fmt.Sprintf("service-%d-%d", uid, i), tcp.SocketOwner{UID: uid, State: tcp.Listen}, 1)
			}
		}
		for i := range 3 * maxNames {
			add(uint32(10_000+i), fmt.Sprintf("flood-%d", i), floodOf(i), 1000)
		}
		add(10_000, "service-1-0", floodOf(0), 900) // fewer than any other name of the flood
		m.Sockets(census, func(uint64) *tcp.Cgroup { return nil })
		got := gather(t, m)
		for family, label := range map[string]string{"tcpshift_sockets": "netns", "tcpshift_service_sockets": "service"} {
			for i := range minNames {
				for uid := range 3 {
					name := fmt.Sprintf("service-%d-%d", uid, i)
					if label == "netns" {
						name = strconv.Itoa(100*uid + i)
					}
					if sum(got[family], map[string]string{label: name}) == 0 {
						t.Errorf("%s floods: %s of another user has no series", what, name)
					}
				}
			}
			if n := sum(got[family], nil); n != all {
				t.Errorf("%s floods: %s is %v in all, want %v", what, family, n, all)
			}
			if n := len(got[family].GetMetric()); n > maxNames+3 {
				t.Errorf("%s floods: %d series of %s", what, n, family)
			}
		}
	}
}

// Of more than 100 namespaces those with the largest shares are shown.
func TestMetrics_Usage(t *testing.T) {
	m := newTest(t, 0)
	var all []detect.Usage
	for i := range uint32(1000) {
		all = append(all, detect.Usage{Netns: i + 1, LimitsKnown: true, PortsUsed: float64(i), Ports: 2000, TimeWaits: 10, MaxTimeWaits: 1000})
	}
	all[5].TimeWaits, all[6].TimeWaits = 900, -1
	m.Usage(all)
	got := gather(t, m)
	for _, want := range []struct {
		n      float64
		family string
		netns  string
	}{
		{0.4995, "tcpshift_ephemeral_ports_used_ratio", "1000"},
		{2000, "tcpshift_ephemeral_ports", "1000"},
		{900, "tcpshift_time_waits", "6"},
		{0.45, "tcpshift_ephemeral_ports_used_ratio", "other"},
		{8990, "tcpshift_time_waits", "other"},
		{900_000, "tcpshift_time_waits_limit", "other"},
	} {
		if n := sum(got[want.family], map[string]string{"netns": want.netns}); n != want.n {
			t.Errorf("%s of %s is %v, want %v", want.family, want.netns, n, want.n)
		}
	}
	if n := len(got["tcpshift_ephemeral_ports"].GetMetric()); n != maxNames+1 {
		t.Errorf("%d namespaces, want %d", n, maxNames+1)
	}
}

// The use of accept queues shows by namespace and by service: what is not known has an empty label, a service in two
// namespaces has the larger share, and one user with many services leaves room for those of others.
func TestMetrics_ListenQueues(t *testing.T) {
	m := newTest(t, 0)
	listener := func(comm string, user uint32, share float64) detect.ListenUsage {
		l := detect.ListenUsage{Share: share, User: user, Owner: tcp.Owner{Source: tcp.PIDTask}}
		copy(l.Owner.Comm[:], comm)
		return l
	}
	of := func(share float64, listeners ...detect.ListenUsage) detect.Usage {
		return detect.Usage{Netns: 1, HasListeners: true, ListenQueueShare: share, Listeners: listeners}
	}
	usage := []detect.Usage{of(0.5, listener("web", 0, 0.25), detect.ListenUsage{Share: 0.5}), of(0.75, listener("web", 0, 0.75)), {Netns: 3, LimitsKnown: true}}
	usage[1].Netns = 2
	check := func(family string, labels map[string]string, want ...float64) {
		t.Helper()
		var got []float64
		for _, each := range gather(t, m)[family].GetMetric() {
			if labels == nil || labels["service"] == each.GetLabel()[0].GetValue() {
				got = append(got, each.GetGauge().GetValue())
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s%v is %v, want %v", family, labels, got, want)
		}
	}
	m.Usage(usage)
	check("tcpshift_listen_queue_used_ratio", nil, 0.5, 0.75)
	check("tcpshift_service_listen_queue_used_ratio", map[string]string{"service": "web"}, 0.75)
	check("tcpshift_service_listen_queue_used_ratio", map[string]string{"service": ""}, 0.5)
	check("tcpshift_time_waits_limit", nil, 0)
	var many []detect.ListenUsage
	for i := range 3 * maxNames {
		many = append(many, listener(fmt.Sprint("flood-", i), 1000, 1))
	}
	for i := range maxUserNames {
		many = append(many, listener(fmt.Sprint("own-", i), uint32(i), 0.01))
	}
	m.Usage([]detect.Usage{of(1, many...)})
	if n := len(gather(t, m)["tcpshift_service_listen_queue_used_ratio"].GetMetric()); n != maxNames+1 {
		t.Errorf("%d services, want %d", n, maxNames+1)
	}
	check("tcpshift_service_listen_queue_used_ratio", map[string]string{"service": fmt.Sprint("own-", maxUserNames-1)}, 0.01)
	check("tcpshift_service_listen_queue_used_ratio", map[string]string{"service": "other"}, 1)
}
