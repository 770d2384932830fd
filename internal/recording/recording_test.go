package recording

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const (
	first  = `{"type":"transition","time":"2026-11-22T12:23:24.112473420Z","seq":28,"conn":"2b8b94","peer_port":9,"comm":"</script>","in_state_ns":0,"cluster":"blue"}` + "\n"
	second = `{"type":"loss","time":"2026-11-22T12:24:56.149518061Z","seq":307,"lost":3505,"cause":"ring_full"}` + "\n"
)

// readAll returns the types of all records, and the summary.
func readAll(t *testing.T, r io.Reader) (types string, s Summary) {
	t.Helper()
	reader, err := NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	var rec Record
	for {
		err := reader.Next(&rec)
		if errors.Is(err, io.EOF) {
			return strings.TrimSpace(types), reader.Summary()
		}
		if err != nil {
			t.Fatal(err)
		}
		types += rec.Type + " "
	}
}

// A record has the values of its line.
func TestReader_Values(t *testing.T) {
	reader, err := NewReader(strings.NewReader(first))
	if err != nil {
		t.Fatal(err)
	}
	var rec Record
	if err := reader.Next(&rec); err != nil {
		t.Fatal(err)
	}
	want := time.Date(2026, 11, 22, 12, 23, 24, 112473420, time.UTC)
	if !rec.Time.Std().Equal(want) || rec.Seq != 28 || rec.Conn != "2b8b94" || rec.PeerPort != 9 || rec.Comm != "</script>" || rec.InState == nil {
		t.Errorf("%+v", rec)
	}
}

// Lines that are no records are counted and shown, and those behind them are read.
func TestReader_UnreadableLines(t *testing.T) {
	bad := []string{
		"no JSON at all", `{"time":"2026-11-22T12:23:24Z"}`, `{"type":"stats"}`, `[1]`, `{"type":"stats","time":"yesterday"}`,
		`{"type":"stats","time":"9999-01-01T00:00:00Z"}`, `{"type":"stats","time":"2026-11-22T12:23:24Z","seen":"many"}`,
		`{"type":"stats","time":"2026-11-22T12:23:24Z","seen":-1}`, "\xff\xfe", strings.Repeat("x", 3*maxLine), `{"type":"` + "\x1b]0;owned\a",
	}
	types, s := readAll(t, strings.NewReader(first+strings.Join(bad, "\n")+"\n\n \n"+second))
	if types != "transition loss" || s.Lines != uint64(len(bad))+2 || s.Unreadable != uint64(len(bad)) || s.Records != 2 || s.CutOff {
		t.Errorf("read %q, %+v", types, s)
	}
	if len(s.Shown) != maxShown || s.Shown[0] != (Unreadable{2, "no JSON at all", "it is not JSON"}) {
		t.Errorf("shown: %+v", s.Shown)
	}
}

// The text of a line that is shown can move no cursor.
func TestReader_ShownIsPrintable(t *testing.T) {
	_, s := readAll(t, strings.NewReader("\x1b]0;owned\a\u202e\n"))
	if len(s.Shown) != 1 || s.Shown[0].Text != `\x1b]0;owned\x07\u202e` {
		t.Errorf("shown: %+v", s.Shown)
	}
}

// A stream that ends in the middle of a line is read up to there, also if it is compressed.
func TestReader_CutOff(t *testing.T) {
	types, s := readAll(t, strings.NewReader(first+second[:40]))
	if types != "transition" || !s.CutOff || s.Unreadable != 0 || s.Lines != 1 {
		t.Errorf("read %q, %+v", types, s)
	}
	types, s = readAll(t, strings.NewReader(first+strings.TrimSpace(second)))
	if types != "transition loss" || s.CutOff {
		t.Errorf("only the end of the line is missing: read %q, %+v", types, s)
	}
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	for range 1000 {
		_, _ = io.WriteString(w, first) // a buffer takes all
	}
	if err := errors.Join(w.Flush(), w.Close()); err != nil {
		t.Fatal(err)
	}
	types, s = readAll(t, bytes.NewReader(zipped.Bytes()))
	if strings.Count(types, "transition") != 1000 || s.CutOff {
		t.Errorf("compressed: %d records, %+v", strings.Count(types, "transition"), s)
	}
	types, s = readAll(t, bytes.NewReader(zipped.Bytes()[:zipped.Len()-12]))
	if n := strings.Count(types, "transition"); n < 900 || !s.CutOff || s.Unreadable != 0 {
		t.Errorf("compressed and cut: %d records, %+v", n, s)
	}
	damaged := bytes.Clone(zipped.Bytes())
	damaged[zipped.Len()-8] ^= 1 // of the checksum
	if _, s = readAll(t, bytes.NewReader(damaged)); !s.CutOff {
		t.Errorf("compressed and damaged: %+v", s)
	}
}

// An error of the stream is no end.
func TestReader_StreamFails(t *testing.T) {
	broken := errors.New("the disk is gone")
	reader, err := NewReader(io.MultiReader(strings.NewReader(first), iotest.ErrReader(broken)))
	if err != nil {
		t.Fatal(err)
	}
	var rec Record
	if err := reader.Next(&rec); err != nil {
		t.Fatal(err)
	}
	if err := reader.Next(&rec); !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(first + second))
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		reader, err := NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		var rec Record
		for range len(b) + 2 {
			if err := reader.Next(&rec); err != nil {
				s := reader.Summary()
				if s.Lines != s.Records+s.Unreadable || !errors.Is(err, io.EOF) {
					t.Errorf("%v: %+v", err, s)
				}
				return
			}
		}
		t.Error("there is no end")
	})
}
