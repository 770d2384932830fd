package record

import (
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

func socketCountCases() []goldenCase {
	by := tcp.SocketKeys()
	edit := func(name string, change func(c *tcp.SocketCount)) goldenCase {
		return goldenCase{name, func(e Encoder, dst []byte) []byte {
			t := fullV4()
			c := tcp.SocketCount{Time: moment, Sockets: 1204, SocketGroup: tcp.SocketGroup{
				State: tcp.CloseWait, Netns: t.Netns, Local: t.Local, Peer: t.Peer, PID: t.Owner.PID, Comm: t.Owner.Comm, CommKnown: true,
				UID: 1000, UIDKnown: true, Container: containerID,
				Pod: "web-0", Namespace: "shop", ContainerName: "nginx", Unit: "nginx.service", Service: "nginx",
			}}
			change(&c)
			return e.(SocketEncoder).SocketCount(dst, &c, by)
		}}
	}
	first := edit("every key", func(*tcp.SocketCount) {})
	return []goldenCase{
		{first.name, func(e Encoder, dst []byte) []byte { return first.encode(e, e.(SocketEncoder).CountHeader(dst, by)) }},
		edit("IPv6, and no port", func(c *tcp.SocketCount) { c.Local, c.Peer = fullV6().Local, tcp.Endpoint{Addr: fullV6().Peer.Addr} }),
		edit("a hostile comm, and the user 0", func(c *tcp.SocketCount) { c.Comm, c.UID = task(1, "\x1b[2J\"\n\u202e").Comm, 0 }),
		edit("claimed names", func(c *tcp.SocketCount) {
			c.Pod, c.Namespace, c.ContainerName = "", "", ""
			c.ContainerClaimed, c.UnitClaimed, c.ServiceClaimed = true, true, true
		}),
		edit("hostile names", func(c *tcp.SocketCount) {
			c.Pod, c.Namespace, c.ContainerName, c.Service = "\x1b[2J", "a\nb", "\xff\"\u202e", "\\ \t"
		}),
		edit("nothing is known", func(c *tcp.SocketCount) { c.SocketGroup = tcp.SocketGroup{} }),
		edit("others", func(c *tcp.SocketCount) { c.SocketGroup, c.Other = tcp.SocketGroup{}, true }),
	}
}

// The text has a column for each key that was asked for, in that order.
func TestText_SocketCount(t *testing.T) {
	by := []tcp.SocketKey{tcp.KeyComm, tcp.KeyState}
	c := tcp.SocketCount{Sockets: 12, SocketGroup: tcp.SocketGroup{State: tcp.TimeWait}}
	got := string(Text{}.SocketCount(Text{}.CountHeader(nil, by), &c, by))
	want := "SOCKETS COMM            STATE\n" +
		"     12 -               TIME_WAIT\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
