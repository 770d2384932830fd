package detection_test

import (
	"flag"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// soak is how long TestSoak_NoPhantoms runs. It needs -load-duration of the same length.
var soak = flag.Duration("soak", 0, "how long the soak with losses and restarts lasts; 0: leave it out")

const (
	restartEvery = 5 * time.Minute  // the tracer ends in order and is killed by turns
	loseEvery    = 40 * time.Second // the tracer is stopped until its ring buffer is full
	// afterLoads is how long the tracer runs on after all loads: the TIME_WAITs expire within
	// 62 s, and an alert closes when its cause has been gone for 20 s.
	afterLoads = 100 * time.Second
)

// Normal loads, a storm and a leak that come and go, and a tracer that loses transitions
// every 40 s and is restarted every five minutes: a normal load has no alert, except an
// unverified one that is refuted, and at the end no alert is open. With -busy-loops all of this gets little CPU time.
func TestSoak_NoPhantoms(t *testing.T) {
	tcplab.RequireRoot(t)
	if *soak == 0 {
		t.Skip("runs for as long as -soak says: make test-long")
	}
	*duration = *soak
	startBusyLoops(t, *busyLoops)
	var normal []uint32 // inodes of the namespaces of normal loads
	found := make(chan *hostPair, 100)
	ended := make(chan struct{})
	inodes := &tracer{t: t} // keeps the inodes of the loads in use
	go func() {
		defer close(ended)
		t.Run("loads", func(t *testing.T) {
			for name, load := range normalLoads {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					found <- load(t, inodes)
				})
			}
			for name, load := range map[string]func(t *testing.T, inodes *tracer){"a storm": stormAgain, "a leak": leakAgain} {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					load(t, inodes)
				})
			}
		})
	}()
	lost, tracers := tracedWithLosses(t, ended)
	close(found)
	for s := range found {
		normal = append(normal, s.client.Inode(), s.server.Inode())
	}
	alerts := 0
	for i, tr := range tracers {
		alerts += len(tr.alerts)
		for _, inode := range normal {
			checkRefuted(t, i, tr.of(inode))
		}
	}
	everyAlertCloses(t, tracers[len(tracers)-1])
	t.Logf("%d tracers, %d losses forced, %d alerts", len(tracers), lost, alerts)
}

// tracedWithLosses runs one tracer after the other until the loads have ended, and then the
// last one until all alerts must have closed.
func tracedWithLosses(t *testing.T, ended <-chan struct{}) (lost int, tracers []*tracer) {
	filler := tcplab.NewNetns(t)
	for over := false; !over; {
		tr := startTracer(t, "alerts", "--buffer-size", "64KiB")
		tracers = append(tracers, tr)
		restart := time.After(restartEvery)
		lose := time.NewTicker(loseEvery)
		for again := true; again && !over; {
			select {
			case <-ended:
				time.Sleep(afterLoads)
				over = true
			case <-restart:
				again = false
			case <-lose.C:
				loseTransitions(t, tr, filler)
				lost++
			}
		}
		lose.Stop()
		if !over && len(tracers)%2 == 0 {
			tr.kill()
		} else {
			open := tr.open()
			tr.stop()
			if over && len(open) > 0 {
				t.Errorf("open %v after all loads have ended: %+v", afterLoads, open)
			}
		}
	}
	return lost, tracers
}

// loseTransitions stops the tracer until the other loads and 1,500 refused connects have filled
// its ring buffer.
func loseTransitions(t *testing.T, tr *tracer, filler *tcplab.Netns) {
	t.Helper()
	if err := tr.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 1500 {
		s := filler.Socket(tcplab.V4.Loopback())
		_ = s.TryConnect(tcplab.V4.At(1))
		s.Close()
	}
	time.Sleep(2 * time.Second)
	if err := tr.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// kill ends the tracer with SIGKILL and reads all its alerts.
func (tr *tracer) kill() {
	_ = tr.cmd.Process.Kill()
	<-tr.done
	_ = tr.cmd.Wait()
}

// open returns the newest record of each alert that is open.
func (tr *tracer) open() (list []alert) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	newest := make(map[string]alert)
	for _, a := range tr.alerts {
		newest[a.Alert] = a
	}
	for _, a := range newest {
		if a.Phase != "close" {
			list = append(list, a)
		}
	}
	return list
}

// checkRefuted allows alerts that were not verified, if the kernel's table has refuted them. On a machine without a free
// CPU its answer may come late.
func checkRefuted(t *testing.T, tracer int, alerts []alert) {
	t.Helper()
	opened := make(map[string]alert)
	for _, a := range alerts {
		last, known := opened[a.Alert]
		switch {
		case a.Phase != "close" && a.Confidence == "unverified":
			opened[a.Alert] = a
		case known && a.Phase == "close" && a.CloseReason == "refuted":
			t.Logf("tracer %d: refuted %v after its last report: %s of %d, %d of %d", tracer, a.Time.Sub(last.Time), a.Kind, a.Netns, a.Occupancy, a.Capacity)
		default:
			t.Errorf("tracer %d: a normal load has an alert: %+v", tracer, a)
		}
	}
}

// stormAgain uses up the ports, waits until they are free, and so on.
func stormAgain(t *testing.T, inodes *tracer) {
	s := newHostPair(t, inodes, 300)
	s.serve(80, afterPeer)
	var cycles []phase
	for passed := time.Duration(0); passed < *soak; passed += 2 * time.Minute {
		cycles = append(cycles, phase{PerSecond: 20, For: 20 * time.Second}, phase{For: 100 * time.Second})
	}
	a := <-s.run(workload{To: s.port(80), Phases: cutAfter(*soak, cycles)})
	t.Logf("%d connections made, %d found no port", a.Made, a.NoPort)
}

// leakAgain is a server that does not close, is killed, and so on.
func leakAgain(t *testing.T, inodes *tracer) {
	for end := time.Now().Add(*soak); time.Now().Before(end); time.Sleep(min(30*time.Second, time.Until(end))) {
		t.Run(fmt.Sprint(time.Until(end).Round(time.Second)), func(t *testing.T) {
			s := newHostPair(t, inodes, 5000)
			s.startServer(workload{Listen: s.port(80), NeverClose: true}) // until t ends
			<-s.run(workload{To: s.port(80), Phases: []phase{{PerSecond: 5, For: 45 * time.Second}}})
		})
	}
}
