package trace

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// fakeWatch opens an alert at the first transition, and closes it at the end.
type fakeWatch struct {
	seen, lost uint64
	told       bool
	finished   int
}

func (w *fakeWatch) Observe(*tcp.Transition) { w.seen++ }
func (w *fakeWatch) Lost(count uint64)       { w.lost += count }

func (w *fakeWatch) Alerts() []detect.Alert {
	if w.told || w.seen == 0 {
		return nil
	}
	w.told = true
	return []detect.Alert{{ID: "1", Kind: "time_wait_storm", Phase: detect.Open}}
}

func (w *fakeWatch) Finish() []detect.Alert {
	w.finished++
	return append(w.Alerts(), detect.Alert{ID: "1", Kind: "time_wait_storm", Phase: detect.Close})
}

func watched(t *testing.T, cfg Config, source *fakeSource) (*fakeWatch, string, error) {
	t.Helper()
	return watchedBy(t, &fakeWatch{}, &fakeSink{}, cfg, source)
}

func watchedBy(t *testing.T, w *fakeWatch, sink *fakeSink, cfg Config, source *fakeSource) (*fakeWatch, string, error) {
	t.Helper()
	cfg.Source, cfg.Sink, cfg.Encoder, cfg.Monitor, cfg.Duration = source, sink, record.NewNative(nil), w, time.Second
	err := Run(context.Background(), cfg)
	if w.finished != 1 {
		t.Errorf("the watch was finished %d times, want once", w.finished)
	}
	return w, sink.written.String(), err
}

func TestEveryTransitionIsWatchedWhateverIsWritten(t *testing.T) {
	for _, only := range [][]string{nil, {"alert"}, {"alert", "stats"}} {
		synctest.Test(t, func(t *testing.T) {
			w, out, err := watched(t, Config{Only: only}, &fakeSource{rounds: [][][]byte{samples(3)}, left: samples(2)})
			if err != nil || w.seen != 5 {
				t.Errorf("only %v: %d transitions were watched, want 5; %v", only, w.seen, err)
			}
			opened, closed := strings.Index(out, `"phase":"open"`), strings.Index(out, `"phase":"close"`)
			if stop := strings.Index(out, `"type":"stop"`); opened < 0 || closed < opened || stop < closed {
				t.Errorf("only %v: open at %d, close at %d, stop at %d of\n%s", only, opened, closed, stop, out)
			}
		})
	}
}

func TestTheWatchIsToldOfLosses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &fakeSource{rounds: [][][]byte{samples(1)}}
		source.others = probe.Counters{Primary: probe.ProgramCounters{Entered: 7, RingFull: 7}}
		w, _, err := watched(t, Config{}, source)
		if err != nil || w.lost != 7 {
			t.Errorf("%d losses were told, want 7; %v", w.lost, err)
		}
	})
}

func TestAnAlertIsClosedEvenWhereReadingFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		_, out, err := watched(t, Config{}, &fakeSource{rounds: [][][]byte{samples(1)}, readErr: broken, readErrAt: 2})
		if !errors.Is(err, broken) || !strings.Contains(out, `"phase":"close"`) {
			t.Errorf("%v\n%s", err, out)
		}
	})
}
