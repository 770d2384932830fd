package cli_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The ports that the filters of these tests pass, one at a time.
const portA, portB = 17101, 17102

// A reload changes the filter on ports while connections to two ports come and go. Those of the first port are complete
// until then, those of the second one from then on. Each event comes once, and the account is exact. A connection that
// was out of scope for some of its transitions has no times of them. A wrong filter changes nothing.
func TestReload_Filters(t *testing.T) {
	requireRoot(t)
	c := newConfiguration(t, portIs(portA)...)
	stderr, awaitLine := withStderrFile(t)
	tr := startTracer(t, []string{"--config", c.path, "--only", "transition,connection"}, stderr)
	s := newPortStorm(t)
	isReload := func(line string) bool { return strings.HasPrefix(line, `{"type":"reload",`) }
	reload := func(lines []string) (began time.Time) {
		c.write(lines...)
		began = time.Now()
		tr.signal(syscall.SIGHUP)
		tr.await("reload", isReload)
		return began
	}
	a, b := s.open(portA), s.open(portB)
	s.awaitEnds(200)

	began := reload(portIs(portB))
	s.awaitEnds(200)
	b.close()
	a.closeServer()
	c.write(portIs(70000)...)
	tr.signal(syscall.SIGHUP)
	awaitLine(`: the configuration in use stays`)
	s.awaitEnds(200)
	s.end()
	reload(portIs(portA))
	a.close()
	tr.await("the end of a connection", func(line string) bool {
		return strings.HasPrefix(line, `{"type":"connection",`) && strings.Contains(line, a.client.LocalAddr().(*net.TCPAddr).IP.String())
	})
	tr.signal(syscall.SIGTERM)
	r := tr.wait()
	r.mustEnd(t, 0)
	got := parseStream(t, r)
	if last := got.last(); last.LostReentry+last.LostRingFull+last.LostRingBusy > 0 {
		t.Errorf("stop is %+v, want no losses", last)
	}
	s.check(got, began)
	checkSpanning(t, got, b, "the end of a connection that was out of scope until the reload", "ESTABLISHED", "FIN_WAIT1")
	checkSpanning(t, got, a, "the end of a connection that was out of scope between two reloads", "CLOSE_WAIT", "LAST_ACK")
}

func portIs(port int) []string { return []string{"stats-interval: 0", fmt.Sprintf("port: %d", port)} }

// portStorm makes short connections to both ports in turn, each from an address of its own.
type portStorm struct {
	t         *testing.T
	listeners map[int]net.Listener
	stop      chan struct{}
	running   sync.WaitGroup

	mu    sync.Mutex
	count int
	made  map[string]*shortLife // by the client's address
	ended int
}

// shortLife is one connection of the storm. It has ended when both sides have seen the end.
type shortLife struct {
	port         int
	began, ended time.Time
	client       net.Conn
	server       chan net.Conn
}

func newPortStorm(t *testing.T) *portStorm {
	s := &portStorm{t: t, listeners: make(map[int]net.Listener), stop: make(chan struct{}), made: make(map[string]*shortLife)}
	for _, port := range []int{portA, portB} {
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		s.listeners[port] = l
		go s.serve(l)
	}
	for range 2 {
		s.running.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-s.stop:
					return
				default:
				}
				life := s.connect([]int{portA, portB}[i%2])
				_ = life.client.(*net.TCPConn).SetLinger(0)
				_ = life.client.Close()
				s.read(<-life.server, life)
			}
		})
	}
	return s
}

// connect opens a connection from an address that no other one has.
func (s *portStorm) connect(port int) *shortLife {
	s.mu.Lock()
	s.count++
	from := net.IPv4(127, 1+byte(s.count>>16), byte(s.count>>8), byte(s.count))
	life := &shortLife{port: port, began: time.Now(), server: make(chan net.Conn, 1)}
	s.made[from.String()] = life
	s.mu.Unlock()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	client, err := d.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		panic(err) // in a goroutine a test cannot end
	}
	life.client = client
	return life
}

func (s *portStorm) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		life := s.made[c.RemoteAddr().(*net.TCPAddr).IP.String()]
		s.mu.Unlock()
		life.server <- c
	}
}

// read waits until the peer's reset has ended the connection.
func (s *portStorm) read(c net.Conn, life *shortLife) {
	_, _ = io.Copy(io.Discard, c)
	s.mu.Lock()
	life.ended = time.Now()
	s.ended++
	s.mu.Unlock()
	c.Close()
}

// awaitEnds waits until so many more connections have ended.
func (s *portStorm) awaitEnds(count int) {
	ended := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.ended
	}
	for first := ended(); ended() < first+count; {
		time.Sleep(time.Millisecond)
	}
}

func (s *portStorm) end() {
	close(s.stop)
	s.running.Wait()
}

// spanning is a connection that lives while the filter changes.
type spanning struct {
	t              *testing.T
	client, server net.Conn
}

// open makes a connection that stays open.
func (s *portStorm) open(port int) *spanning {
	life := s.connect(port)
	return &spanning{s.t, life.client, <-life.server}
}

// closeServer closes the server's side, and waits until the client has seen it.
func (c *spanning) closeServer() {
	c.t.Helper()
	c.server.Close()
	if n, err := c.client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		c.t.Fatalf("read %d bytes, %v, want the end", n, err)
	}
}

func (c *spanning) close() {
	c.client.Close()
	c.server.Close()
}

// check compares the transitions of the storm with the time at which the reload from the first port to the second one
// was asked for, and that of its record.
func (s *portStorm) check(got stream, began time.Time) {
	t := s.t
	t.Helper()
	done, err := time.Parse(time.RFC3339Nano, got.of("reload")[0].Time)
	if err != nil {
		t.Fatal(err)
	}
	sides := make(map[string][]record) // of a client's address and a role
	for _, r := range got.of("transition") {
		client := r.LocalAddr
		if r.Role == "server" {
			client = r.PeerAddr
		}
		sides[client+r.Role] = append(sides[client+r.Role], r)
	}
	counts := make(map[string]int)
	for client, life := range s.made {
		if life.ended.IsZero() { // it spans the reload
			continue
		}
		whole := life.port == portA && life.ended.Before(began) || life.port == portB && life.began.After(done)
		none := life.port == portB && life.ended.Before(began) || life.port == portA && life.began.After(done)
		for role, first := range map[string]string{"client": "CLOSE", "server": "LISTEN"} {
			all := sides[client+role]
			if none && len(all) > 0 || whole && !isComplete(all, first) {
				t.Errorf("port %d, %s: got %d transitions, all %v, none %v: %+v", life.port, role, len(all), whole, none, all)
			}
		}
		counts[fmt.Sprint(life.port, whole)]++
	}
	if counts[fmt.Sprint(portA, true)] < 50 || counts[fmt.Sprint(portB, true)] < 50 {
		t.Errorf("too few connections: %v", counts)
	}
	t.Logf("connections by port, true if complete: %v", counts)
}

// isComplete reports whether the transitions are all of a socket: an unbroken chain of states to CLOSE.
func isComplete(all []record, first string) bool {
	for _, r := range all {
		if r.OldState != first {
			return false
		}
		first = r.NewState
	}
	return len(all) >= 3 && first == "CLOSE"
}

// checkSpanning checks the first transition of the client that is in the stream after the reload, and its end.
func checkSpanning(t *testing.T, got stream, c *spanning, what, old, state string) {
	t.Helper()
	client := c.client.LocalAddr().(*net.TCPAddr)
	for _, r := range got.records {
		if r.LocalAddr != client.IP.String() || int(r.LocalPort) != client.Port {
			continue
		}
		switch {
		case r.Type == "transition" && r.OldState == old:
			if r.NewState != state || r.PID != uint32(os.Getpid()) || strings.Contains(r.line, `"in_state_ns"`) {
				t.Errorf("%s: want %s -> %s of this process without in_state_ns: %s", what, old, state, r.line)
			}
			old = ""
		case r.Type == "connection":
			if !strings.Contains(r.line, `"partial":true`) || strings.Contains(r.line, `"duration_ns"`) {
				t.Errorf("%s: want partial, without a duration: %s", what, r.line)
			}
			if old == "" {
				return
			}
		}
	}
	t.Errorf("%s: it is not in the stream, or its first transition is not", what)
}

// After ten reloads of the filter the tracer has as many BPF objects as after the first one, and the kernel has freed
// those of the reloads before. Killed within a reload, it leaves nothing behind.
func TestReload_FiltersLeaveNothing(t *testing.T) {
	requireRoot(t)
	c := newConfiguration(t, portIs(1)...)
	stderr, _ := withStderrFile(t)
	tr := startTracer(t, []string{"--config", c.path, "--only", "connection"}, stderr)
	openObjects(t, tr) // as without a configuration: the same number of programs is attached
	_, first := readObjects(t, tr)
	var before map[object]bool
	var counts map[string]int
	for i := range 10 {
		c.write(portIs(2 + i)...)
		tr.signal(syscall.SIGHUP)
		tr.await("reload", func(line string) bool { return strings.HasPrefix(line, `{"type":"reload",`) })
		now, kinds := settledObjects(t, tr, first)
		if before == nil {
			before, counts = now, kinds
			continue
		}
		if fmt.Sprint(kinds) != fmt.Sprint(counts) {
			t.Fatalf("after reload %d the tracer has %v, want %v", i+1, kinds, counts)
		}
		replaced := make(map[object]bool)
		for o := range before {
			if !now[o] {
				replaced[o] = true
			}
		}
		if len(replaced) == 0 {
			t.Error("a reload has replaced no object")
		}
		mustBeGone(t, replaced)
		before = now
	}
	c.write(portIs(99)...)
	tr.signal(syscall.SIGHUP)
	opened := before
	for began := time.Now(); len(opened) <= len(before) && time.Since(began) < waitLimit; {
		opened, _ = readObjects(t, tr)
	}
	tr.signal(syscall.SIGKILL)
	tr.waitUnread()
	mustBeGone(t, opened)
}

// settledObjects returns the objects of a tracer once a reload is over, which is after its record: then it has as many
// programs and links as after its start, and closes nothing more.
func settledObjects(t *testing.T, tr *tracer, first map[string]int) (opened map[object]bool, kinds map[string]int) {
	t.Helper()
	last, since := "", time.Now()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		opened, kinds = readObjects(t, tr)
		if is := fmt.Sprint(kinds); is != last {
			last, since = is, time.Now()
		}
		if kinds["link_id"] == first["link_id"] && kinds["prog_id"] == first["prog_id"] && time.Since(since) > time.Second/2 {
			return opened, kinds
		}
		if time.Since(began) > waitLimit {
			t.Fatalf("after a reload the tracer has %v, and at its start %v", kinds, first)
		}
	}
}
