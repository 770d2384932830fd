package peers_test

import (
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// A request by curl has the right addresses, ports, states and owner.
func TestPeer_Curl(t *testing.T) {
	curl := requireProgram(t, "curl")
	var config net.ListenConfig
	config.SetMultipathTCP(false) // its sockets are not TCP sockets
	listener, err := config.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(listener.Addr().(*net.TCPAddr).Port)
	server := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })

	tracer := start(t, program, "--port", listener.Addr().String()[strings.LastIndex(listener.Addr().String(), ":")+1:])
	tracer.await(`"type":"start"`)
	before := time.Now()
	cmd := exec.Command(curl, "-s", "-o", "/dev/null", "http://"+listener.Addr().String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("curl: %v: %s", err, out)
	}
	tracer.await(`"new_state":"TIME_WAIT"`)
	after := time.Now()
	tracer.interrupt()

	var path []string
	for _, r := range tracer.records() {
		if r.Type != "transition" || r.Role != "client" {
			continue
		}
		if r.Old == "CLOSE" {
			path = append(path, r.Old)
		}
		path = append(path, r.New)
		if r.PeerAddr != "127.0.0.1" || r.PeerPort != port || r.LocalAddr != "127.0.0.1" {
			t.Errorf("wrong addresses, want 127.0.0.1 to 127.0.0.1:%d: %s", port, r.raw)
		}
		if r.PID != cmd.Process.Pid || r.Comm != "curl" {
			t.Errorf("owner is not curl, pid %d: %s", cmd.Process.Pid, r.raw)
		}
		if r.Time.Before(before) || r.Time.After(after) {
			t.Errorf("time is not between %v and %v: %s", before, after, r.raw)
		}
	}
	want := []string{"CLOSE", "SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"}
	if !slices.Equal(path, want) {
		t.Errorf("states of curl's socket %v, want %v", path, want)
	}
}
