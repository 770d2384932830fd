package metrics_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

var (
	scrapeTime  = flag.Duration("scrape-time", 4*time.Second, "how long each part of TestScrape_Cost lasts")
	scrapeLimit = flag.Float64("scrape-limit", 3, "the part of a core, in percent, from which TestScrape_Cost fails")
)

const (
	// services have 10,000 sockets together, besides their listeners.
	services           = 200
	serviceConnections = 25
	// serviceVariable makes this program one of them. Its value is the port.
	serviceVariable = "TCPSHIFT_TEST_SERVICE"
	scrapeRounds    = 3
	protobuf        = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)

// beService holds connections to itself, ends some in different ways, and ends when standard input does.
func beService() {
	port, err := strconv.Atoi(os.Getenv(serviceVariable))
	if err == nil {
		err = connectToSelf(&unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func connectToSelf(to *unix.SockaddrInet4) error {
	socket := func() (fd int) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			panic(err)
		}
		return fd
	}
	listener := socket()
	if err := errors.Join(unix.Bind(listener, to), unix.Listen(listener, 128)); err != nil {
		return err
	}
	for i := range serviceConnections + 3 {
		client := socket()
		if err := unix.Connect(client, to); err != nil {
			return err
		}
		server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		switch {
		case err != nil:
			return err
		case i == serviceConnections:
			err = errors.Join(unix.Close(client), unix.Close(server))
		case i == serviceConnections+1:
			err = errors.Join(unix.Close(server), unix.Close(client))
		case i == serviceConnections+2:
			err = errors.Join(unix.SetsockoptLinger(client, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}), unix.Close(client), unix.Close(server))
		}
		if err != nil {
			return err
		}
	}
	refused := socket()
	defer unix.Close(refused)
	if err := unix.Connect(refused, &unix.SockaddrInet4{Port: 1, Addr: to.Addr}); !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("a connect to port 1: %w", err)
	}
	return nil
}

// startServices starts processes of different names, and waits until they have their connections.
func (s *scene) startServices() {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	dir := s.t.TempDir()
	for i := range services {
		path := filepath.Join(dir, fmt.Sprintf("service-%d", i))
		if err := os.Symlink(self, path); err != nil {
			s.t.Fatal(err)
		}
		c := exec.Command(path)
		c.Env = append(os.Environ(), fmt.Sprintf("%s=%d", serviceVariable, 10000+i))
		stdin, err := c.StdinPipe()
		if err != nil {
			s.t.Fatal(err)
		}
		stdout, err := c.StdoutPipe()
		if err != nil {
			s.t.Fatal(err)
		}
		s.start(c)
		s.t.Cleanup(func() { stdin.Close() })
		if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
			s.t.Fatalf("service %d: %v: %s", i, err, line)
		}
	}
}

// scrape asks as Prometheus does, and returns the answer as it came.
func (s *scene) scrape(accept string) []byte {
	s.t.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://"+tcpshiftAddress+"/metrics", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	request.Header.Set("Accept-Encoding", "gzip")
	response, err := s.client.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		s.t.Fatalf("%v, %s: %.200s", err, response.Status, body)
	}
	return body
}

// values returns the values of a metric in an answer in text, by labels.
func values(t *testing.T, text, name string) map[string]float64 {
	t.Helper()
	all := make(map[string]float64)
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(\{[^}]*\})? (\S+)$`).FindAllStringSubmatch(text, -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		all[m[1]] = v
	}
	return all
}

func sumOf(all map[string]float64) (sum float64) {
	for _, v := range all {
		sum += v
	}
	return sum
}

// With 10,000 sockets of 200 services, a scrape a second takes less than a hundredth of one core: the CPU time of
// tcpshift with scrapes, less that without, in turns. make bench-scrape fails from that limit on. The same work takes more
// CPU time on a busy machine, so a run without -scrape-limit fails only from three times as much on.
func TestScrape_Cost(t *testing.T) {
	s := newScene(t)
	s.startServices()
	const sockets = 2 * services * serviceConnections
	var text string
	s.await("count of all sockets", func() bool {
		text = s.get("http://" + tcpshiftAddress + "/metrics")
		return sumOf(values(t, text, "tcpshift_sockets")) >= sockets && sumOf(values(t, text, "tcpshift_connections_total")) >= 7*services
	})
	series := strings.Count(text, "\n") - strings.Count(text, "\n#")
	formats := []struct{ name, accept string }{{"no scrapes", ""}, {"text", "text/plain"}, {"protobuf", protobuf}}
	spent := make([]time.Duration, len(formats))
	bytes := make([]int, len(formats))
	for range scrapeRounds {
		for i, f := range formats {
			before := tcplab.CPUTime(t, s.tcpshift.Process.Pid)
			tick := time.NewTicker(time.Second)
			for end := time.Now().Add(*scrapeTime); time.Now().Before(end); <-tick.C {
				if f.accept != "" {
					bytes[i] = len(s.scrape(f.accept))
				}
			}
			tick.Stop()
			spent[i] += tcplab.CPUTime(t, s.tcpshift.Process.Pid) - before
		}
	}
	percent := func(d time.Duration) float64 { return 100 * d.Seconds() / (scrapeRounds * scrapeTime.Seconds()) }
	t.Logf("%.0f sockets, %d services, %d series; without scrapes %.2f %% of a core", sumOf(values(t, text, "tcpshift_sockets")), services, series, percent(spent[0]))
	for i, f := range formats[1:] {
		more := percent(spent[i+1] - spent[0])
		t.Logf("a scrape a second, %s, %d bytes of gzip: %.2f %% more", f.name, bytes[i+1], more)
		if more >= *scrapeLimit {
			t.Errorf("scrapes of %s take %.2f %% of a core, want less than %v %%", f.name, more, *scrapeLimit)
		}
	}
}

// A listener from which nobody accepts shows with the share of its queue that is in use, by namespace and by
// service, and with 0 once its connections are accepted.
func TestScrape_ListenQueue(t *testing.T) {
	s := newScene(t)
	at := netip.MustParseAddrPort("127.0.0.1:7000")
	listener := s.n.Listen(at) // after tcpshift has started: its service is known
	defer listener.Close()
	if err := unix.Listen(listener.FD, 9); err != nil { // a queue of ten
		t.Fatal(err)
	}
	for range 5 {
		client := s.n.Dial(at)
		t.Cleanup(client.Close)
	}
	shows := func(share float64) func() bool {
		return func() bool {
			text := s.get("http://" + tcpshiftAddress + "/metrics")
			byNetns := values(t, text, "tcpshift_listen_queue_used_ratio")
			byService := values(t, text, "tcpshift_service_listen_queue_used_ratio")
			_, unknown := byService[`{service=""}`]
			return !unknown && len(byService) == 1 && sumOf(byService) == share &&
				len(byNetns) == 1 && byNetns[fmt.Sprintf("{netns=\"%d\"}", s.n.Inode())] == share
		}
	}
	s.await("queue that is half full", shows(0.5))
	for range 5 {
		server := listener.Accept()
		t.Cleanup(server.Close)
	}
	s.await("empty queue", shows(0))
}
