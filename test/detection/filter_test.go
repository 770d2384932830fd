package detection_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Sockets that are older than the tracer raise an alert only if they pass its filters.
func TestAlert_OlderSocketsPassFilters(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	s := newHostPair(t, nil, 100)
	s.serve(80, afterPeer)
	if result := <-s.run(workload{To: s.port(80), Phases: []phase{{PerSecond: 200, For: time.Second}}}); result.NoPort == 0 {
		t.Fatalf("the test is wrong, every connect() found a port: %+v", result)
	}
	other := tcplab.NewNetns(t)
	inode := func(n *tcplab.Netns) string { return strconv.FormatUint(uint64(n.Inode()), 10) }
	passes := map[*tracer]bool{}
	for args, pass := range map[[2]string]bool{
		{"--family", "4"}: true, {"--netns", inode(s.client)}: true, {"--port", "80"}: true, {"--peer-addr", "10.9.0.0/24"}: true,
		{"--family", "6"}: false, {"--netns", inode(other)}: false, {"--port", "81"}: false, {"--local-port", "80"}: false,
		{"--addr", "10.9.1.0/24"}: false, {"--comm", "nothing"}: false, {"--pid", "1"}: false,
	} {
		passes[startTracer(t, "alerts", args[0], args[1])] = pass
	}
	time.Sleep(5 * time.Second) // the TIME_WAITs remain for far longer
	for tr, pass := range passes {
		tr.stop()
		if got := len(pick(tr.of(s.client.Inode()), "time_wait_storm", "open")); (got == 1) != pass || got > 1 {
			t.Errorf("%v: %d alerts, pass %v", tr.cmd.Args[1:], got, pass)
		}
	}
}
