package selection

import (
	"math"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// A sample has one of N sockets, whatever the pattern of their cookies, and the two ends of a
// connection, whose cookies are neighbors, are independent.
func TestSample_ShareAndIndependence(t *testing.T) {
	const sockets = 1 << 20
	for _, n := range []uint64{2, 3, 10, 64, 100, 1000} {
		for _, start := range []uint64{1, 0x2b0000, 1 << 40} {
			for _, step := range []uint64{1, 2, 4096} {
				var one, both float64
				for i := range uint64(sockets) {
					if cookie := start + i*step; inSample(cookie, n) {
						one++
						if inSample(cookie+1, n) {
							both++
						}
					}
				}
				for _, count := range []struct {
					what      string
					got, want float64
				}{{"one end", one, sockets / float64(n)}, {"both ends", both, sockets / float64(n*n)}} {
					// Six standard deviations of a binomial distribution, nearly.
					if math.Abs(count.got-count.want) > 6*math.Sqrt(count.want)+1 {
						t.Errorf("1/%d of cookies from %#x by %d: %s %v times, want about %v", n, start, step, count.what, count.got, count.want)
					}
				}
			}
		}
	}
}

// All records of a socket are in a sample or none, and those of listeners always are.
func TestSample_NeverSplitsASocket(t *testing.T) {
	s := Selection{Sample: 4}
	in := 0
	for cookie := range uint64(1000) {
		first := tcp.Transition{Cookie: cookie, Old: tcp.Close, New: tcp.SynSent, Role: tcp.RoleClient}
		last := tcp.Transition{Cookie: cookie, Old: tcp.LastAck, New: tcp.Close}
		connection := s.Connection(&last, &tcp.Connection{Sent: 7})
		if s.Transition(&first) != connection || s.Transition(&last) != connection {
			t.Fatalf("socket %d is split", cookie)
		}
		if connection {
			in++
		}
		listener := tcp.Transition{Cookie: cookie, Old: tcp.Close, New: tcp.Listen, Role: tcp.RoleListener}
		if !s.Transition(&listener) || !s.Connection(&listener, &tcp.Connection{}) {
			t.Fatalf("listener %d is left out", cookie)
		}
	}
	if in < 180 || in > 320 {
		t.Errorf("%d of 1000 sockets are in a sample of 1/4", in)
	}
	if s := (Selection{Sample: 1}); s.OrNil() != nil {
		t.Error("a sample of 1/1 leaves something out")
	}
}

// A share is 1/N.
func TestParse_Sample(t *testing.T) {
	for word, want := range map[string]uint64{"1/1": 1, "1/2": 2, "1/100": 100, "1/1000000": MaxSample} {
		if got, err := ParseSample(word); err != nil || got != want {
			t.Errorf("%q is %d, %v", word, got, err)
		}
	}
	for _, word := range []string{"", "1", "1/", "1/0", "1/-2", "1/1.5", "2/4", "0.5", "1/1000001", "1/ 2", "50%"} {
		if got, err := ParseSample(word); err == nil {
			t.Errorf("%q is %d, want an error", word, got)
		}
	}
}
