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

// A record of a type that this version does not know is a record, whatever its keys are. A line that is none has a reason that
// names the key.
func TestReader_NewerTypes(t *testing.T) {
	const at = `"time":"2026-11-22T12:23:24Z",`
	types, s := readAll(t, strings.NewReader(first+`{"type":"galaxy",`+at+`"error":{"a":1},"pid":"x","reason":[]}`+"\n"+
		`{"type":"connection",`+at+`"error":{"a":1}}`+"\n"+`{"input":"recording","version":1}`+"\n"+second))
	if types != "transition galaxy loss" || s.Records != 3 || s.Unreadable != 2 || s.Shown[0].Why != "the value of error is an object" || s.Shown[1].Why != inputs {
		t.Errorf("read %q, %+v", types, s)
	}
}

// A recording of another major version of the schema ends with an error that names the line.
func TestReader_OtherSchema(t *testing.T) {
	start := func(schema string) string {
		return `{"type":"start","time":"2026-11-22T12:23:24Z","seq":1,"schema":"` + schema + `"}` + "\n"
	}
	reader, err := NewReader(strings.NewReader(first + start("1.7") + first + start(`2.0\u001b[2J`) + first))
	if err != nil {
		t.Fatal(err)
	}
	var rec Record
	read := 0
	for err == nil {
		if err = reader.Next(&rec); err == nil {
			read++
		}
	}
	if read != 3 || !errors.Is(err, ErrSchema) || !strings.HasPrefix(err.Error(), `line 4: the records have the schema 2.0\x1b[2J, and`) {
		t.Errorf("%d records, then %v", read, err)
	}
}

// A byte order mark is skipped, also in a compressed file. A file of another compression is said to be one.
func TestReader_OtherFiles(t *testing.T) {
	const mark = "\xef\xbb\xbf"
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, err := io.WriteString(w, mark+first)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]io.Reader{"plain": strings.NewReader(mark + first), "compressed": &zipped} {
		if types, s := readAll(t, r); types != "transition" || s.Unreadable != 0 {
			t.Errorf("%s: read %q, %+v", name, types, s)
		}
	}
	for _, c := range otherCompressions {
		if _, err := NewReader(strings.NewReader(c.magic + "\x00\x01\n\n")); err == nil || !strings.HasPrefix(err.Error(), "it is compressed with "+c.name+": ") {
			t.Errorf("%s: %v", c.name, err)
		}
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
				if s.Lines != s.Records+s.Unreadable || !errors.Is(err, io.EOF) && !errors.Is(err, ErrSchema) {
					t.Errorf("%v: %+v", err, s)
				}
				return
			}
		}
		t.Error("there is no end")
	})
}
