package record

import (
	"net/netip"
	"time"

	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

func summaryCases() []goldenCase {
	full := summary.Row{
		Start: moment.Add(-10 * time.Second), End: moment, Role: tcp.RoleClient,
		OwnerKnown: true, Service: "0123456789ab", Comm: task(1, "curl").Comm, Cgroup: pod(),
		Peer: endpoint("198.51.100.7", 443).Addr, Port: 443,
		Totals: summary.Totals{
			Connections: 1204, Sent: 498456, Received: 9932800, Retransmits: 3, TimeWaits: 1100,
			Failed: [...]uint64{1, 2, 3, 4, 5, 6, 7},
		},
		Duration: summary.Quantiles{Known: true, P50: 1849213, P99: 23911240},
		RTT:      summary.Quantiles{Known: true, P50: 61234, P99: 240112},
	}
	edit := func(name string, change func(r *summary.Row)) goldenCase {
		return goldenCase{name, func(e Encoder, dst []byte) []byte {
			r := full
			change(&r)
			return e.Summary(dst, &r)
		}}
	}
	return []goldenCase{
		edit("a client", func(*summary.Row) {}),
		edit("a server", func(r *summary.Row) { r.Role, r.Port, r.Totals = tcp.RoleServer, 8080, summary.Totals{Connections: 1} }),
		edit("a listener", func(r *summary.Row) { r.Role, r.Peer = tcp.RoleListener, netip.Addr{} }),
		edit("names that another user has chosen", func(r *summary.Row) { r.Service, r.ServiceClaimed, r.Cgroup = "nginx", true, claimed() }),
		edit("every name", func(r *summary.Row) {
			c := *pod()
			c.Pod, c.Namespace, c.ContainerName, c.Image, c.Unit = "web-0", "shop", "web", "nginx:1.27", "web.service"
			r.Cgroup = &c
		}),
		edit("the owner is not known", func(r *summary.Row) {
			r.OwnerKnown, r.Service, r.Comm, r.Cgroup = false, "", tcp.Comm{}, nil
		}),
		edit("a hostile comm", func(r *summary.Row) {
			r.Service, r.Comm, r.Cgroup = "\x1b[2J\"\n\u202e", task(1, "\x1b[2J\"\n\u202e").Comm, nil
		}),
		edit("others, with few known values", func(r *summary.Row) {
			*r = summary.Row{Start: full.Start, End: full.End, Role: tcp.RoleClient, Other: true, Totals: summary.Totals{Connections: 7}}
		}),
		edit("the role is not known", func(r *summary.Row) { r.Role, r.Peer, r.Port = tcp.RoleUnknown, netip.Addr{}, 0 }),
	}
}
