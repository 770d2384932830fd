package cli_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A snapshot has what each connection has done so far, what waits in its queues, and how many connections wait at a
// listener.
func TestSnapshot_Numbers(t *testing.T) {
	n := tcplab.NewNetns(t)
	listener := n.Listen(plain.to)
	client := n.Dial(plain.to)
	server := listener.Accept()
	transfer(client, server, 100)
	server.Write(strings.Repeat("x", 30))
	client.AwaitReadable()
	waiting := n.Dial(plain.to) // nobody accepts it
	_, r := snapshot(t, "--netns", fmt.Sprint(n.Inode()))
	type numbers struct {
		Conn, State  string
		Sent         *uint64 `json:"sent_bytes"`
		Received     *uint64 `json:"received_bytes"`
		RTT, Cwnd    uint64
		ReceiveQueue *uint64 `json:"receive_queue_bytes"`
		SendQueue    *uint64 `json:"send_queue_bytes"`
		AcceptQueue  *uint64 `json:"accept_queue"`
		Backlog      uint64
	}
	found := make(map[string]numbers)
	for line := range strings.Lines(r.stdout) {
		var s numbers
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		found[s.Conn] = s
		if isListener := s.State == "LISTEN"; isListener != (s.AcceptQueue != nil) || isListener == (s.Sent != nil) || isListener == (s.SendQueue != nil) {
			t.Errorf("the keys of another kind of socket: %s", line)
		}
	}
	for who, want := range map[*tcplab.Socket]struct{ sent, received, unread uint64 }{client: {100, 30, 30}, server: {30, 100, 0}, waiting: {0, 0, 0}} {
		s := found[connOf(who)]
		if s.Sent == nil || *s.Sent != want.sent || *s.Received != want.received || *s.ReceiveQueue != want.unread || *s.SendQueue != 0 || s.Cwnd != uint64(who.Info().Snd_cwnd) {
			t.Errorf("%+v, want %+v", s, want)
		}
	}
	if l := found[connOf(listener)]; l.AcceptQueue == nil || *l.AcceptQueue != 1 || l.Backlog == 0 {
		t.Errorf("the listener has %+v", l)
	}
}
